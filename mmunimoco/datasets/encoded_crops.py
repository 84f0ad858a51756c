"""Leave decoding to the device: samples carry the bytes of JPEG files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from mmpretrain.registry import TRANSFORMS

from .annotations import leaves_of
from .decoding import read_header
from .image_checks import check_complete
from .load_two_crops import LoadTwoCrops
from .pipelines import transforms_of
from .shared_collate import collate_views


@TRANSFORMS.register_module()
class LoadEncodedCrops(LoadTwoCrops):
    """:class:`LoadTwoCrops` that leaves decoding to :class:`TwoViewAugment`.

    For machines with few cores a GPU: the worker reads the file, checks that
    it is complete, and draws the boxes of both views, the same ones as
    ``LoadTwoCrops`` with this seed. Decoding, cropping and resizing follow on
    the model's device, by nvJPEG on a GPU. Needs
    ``collate_fn=dict(type='collate_encoded')`` and ``TwoViewAugment``.

    What nvJPEG may not read, or reads in another way, is decoded by the worker
    as ``LoadTwoCrops`` does, and views are sent: other formats than JPEG,
    progressive, gray and CMYK JPEGs, those stored as RGB, those that EXIF data
    rotate, and more than ``max_device_pixels``.

    Required and modified keys are those of ``LoadTwoCrops``; ``img`` of an
    encoded image is a list of tensors: its bytes, boxes (2, 4), and the sizes
    of image and views (2, 2).

    Args:
        *args: Arguments of ``LoadTwoCrops``.
        antialias (bool): Must be True: the device has no other filter.
            Defaults to True.
        max_device_pixels (int): The most pixels of an image to decode on the
            device, always at full size. A worker decodes larger ones, at a
            reduced size if possible. Defaults to 2**24.
        **kwargs: Arguments of ``LoadTwoCrops``.

    Raises:
        ValueError: If ``antialias`` is False, or ``max_device_pixels`` is
            negative.
    """

    def __init__(
        self,
        *args: Any,
        antialias: bool = True,
        max_device_pixels: int = 2**24,
        **kwargs: Any,
    ) -> None:
        if not antialias:
            raise ValueError(
                'LoadEncodedCrops resizes on the device, with a low-pass '
                'filter only: remove antialias=False, or use LoadTwoCrops'
            )
        if max_device_pixels < 0:
            raise ValueError(
                'LoadEncodedCrops: max_device_pixels must be 0 or more, got '
                f'{max_device_pixels}'
            )
        super().__init__(*args, antialias=True, **kwargs)
        self.max_device_pixels = max_device_pixels

    def _make_views(
        self, content: bytes, path: str
    ) -> tuple[list, tuple[int, int]]:
        """Return bytes, boxes and sizes if the device can decode the image."""
        header = read_header(content)
        if (
            header is None
            or not header.on_device
            or header.size[0] * header.size[1] > self.max_device_pixels
        ):
            return super()._make_views(content, path)
        # First, as in LoadTwoCrops, for broken files draw numbers too.
        boxes = self._draw(header.size)
        check_complete(content, path)
        parts = [
            np.frombuffer(bytearray(content), np.uint8),
            np.array(boxes, np.int64),
            np.array([header.size, self.crop.scale], np.int64),
        ]
        return [torch.from_numpy(part) for part in parts], header.size


@FUNCTIONS.register_module()
def collate_encoded(batch: Sequence[dict]) -> dict:
    """Collate samples of ``LoadEncodedCrops`` and ``PackInputs``.

    Args:
        batch (Sequence[dict]): N samples, M of them encoded.

    Returns:
        dict: The batch as from ``collate_views``; if any sample is encoded,
        ``inputs`` is a dict instead:

        - ``content``: all files end to end, uint8; ``offsets`` (M + 1,);
        - ``boxes``: (M, 2, 4) top, left, height, width of both views;
        - ``sizes``: (M, 2, 2), height and width of image and view;
        - ``rows``: (M,), places of the encoded images in the batch;
        - ``names``: M paths, for errors;
        - ``views``: (V, 2, 3, h, w) uint8 of the others; ``view_rows`` (V,).
    """
    encoded = [_is_encoded(sample) for sample in batch]
    if not any(encoded):
        return collate_views(batch)
    rest = [{k: v for k, v in s.items() if k != 'inputs'} for s in batch]
    places = torch.arange(len(batch))
    chosen = torch.tensor(encoded)
    files = [s['inputs'] for s, yes in zip(batch, encoded, strict=True) if yes]
    others = [
        torch.stack(list(s['inputs']))
        for s, yes in zip(batch, encoded, strict=True)
        if not yes
    ]
    contents, boxes, sizes = zip(*files, strict=True)
    lengths = torch.tensor([0, *map(len, contents)])
    inputs = dict(
        content=torch.cat(contents),
        offsets=lengths.cumsum(0),
        boxes=torch.stack(boxes),
        sizes=torch.stack(sizes),
        rows=places[chosen],
        names=[
            str(s['data_samples'].get('img_path', 'an image'))
            for s, yes in zip(batch, encoded, strict=True)
            if yes
        ],
        views=torch.stack(others) if others else torch.empty(0),
        view_rows=places[~chosen],
    )
    return dict(inputs=inputs, **default_collate(rest))


def check_collate(loader: Any) -> None:
    """Refuse encoded images that the data loader cannot put into a batch.

    Args:
        loader (DataLoader): Of the training data.

    Raises:
        ValueError: Names the field and what to set.
    """
    encodes = any(
        isinstance(step, LoadEncodedCrops)
        for leaf in leaves_of(loader.dataset)
        for step in transforms_of(leaf)
    )
    collate = getattr(loader, 'collate_fn', collate_encoded)
    collate = getattr(collate, 'func', collate)
    if encodes and collate is not collate_encoded:
        name = getattr(collate, '__name__', collate)
        raise ValueError(
            f'the collate_fn of train_dataloader is {name}, but its images '
            'are files of different lengths (LoadEncodedCrops in the '
            "pipeline): set collate_fn=dict(type='collate_encoded')"
        )


def _is_encoded(sample: dict) -> bool:
    return sample['inputs'][0].dim() == 1
