"""Two random crops of an image, which is decoded once and no further."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.registry import TRANSFORMS
from torch.nn import functional

from .decoding import (
    decode,
    decode_whole,
    fitting_reduction,
    read_header,
    reduced_size,
)
from .image_checks import MAX_PIXELS

_REDUCTIONS = (8, 4, 2)


@TRANSFORMS.register_module()
class LoadTwoCrops(BaseTransform):
    """Load an image and cut two random crops from it, as uint8.

    It does what ``LoadImageFromFile`` and ``MultiView`` of mmpretrain's
    ``RandomResizedCrop`` do; all else that views undergo is left to
    :class:`TwoViewAugment`. The crops are drawn by mmpretrain's own
    transform, so that under a seed they are the same ones. They are drawn
    before a JPEG is decoded, so that a photograph of many megapixels is
    decoded at a half, a quarter or an eighth if each crop still has as many
    pixels as its view.

    Required keys: ``img_path``, or ``img`` if a data set has its images in
    memory. Modified keys: ``img``, a list of two views (H, W, 3) as
    ``MultiView`` gives it, BGR where a file was read; ``img_shape`` and
    ``ori_shape``, of the image.

    Args:
        scale (int | Sequence[int]): Size of the views, (height, width) or
            one number for both. Defaults to 224.
        crop_ratio_range (tuple[float]): Smallest and largest share of the
            image's area that a view shows. Defaults to (0.2, 1.0).
        aspect_ratio_range (tuple[float]): Smallest and largest width by
            height of what a view shows. Defaults to (3 / 4, 4 / 3).
        max_attempts (int): Crops to try before the central one is taken.
            Defaults to 10.
        antialias (bool): Whether pixels are averaged where a crop has more
            than its view. True gives the values of Pillow, and of
            ``RandomResizedCrop(backend='pillow')``, by torch's filter for
            uint8; False those of ``backend='cv2'`` (bilinear alone) in half
            the time. Defaults to True.
        ignore_empty (bool): Whether the data set should take another image
            where one does not load. Defaults to False.
        backend_args (dict, optional): How to read the file, for mmengine's
            ``fileio.get``. Defaults to None.
        max_pixels (int): The most pixels to decode, see
            :class:`LoadCheckedImage`. Defaults to 178 956 970.
    """

    def __init__(
        self,
        scale: int | Sequence[int] = 224,
        crop_ratio_range: tuple[float, float] = (0.2, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        antialias: bool = True,
        ignore_empty: bool = False,
        backend_args: dict | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.crop = RandomResizedCrop(
            scale, crop_ratio_range, aspect_ratio_range, max_attempts
        )
        self.resize = resize_antialiased if antialias else resize_bilinear
        self.ignore_empty = ignore_empty
        self.backend_args = backend_args and dict(backend_args)
        self.max_pixels = max_pixels

    def transform(self, results: dict) -> dict | None:
        """Load and crop.

        Args:
            results (dict): Annotation of a sample.

        Returns:
            dict | None: The same with the views; None if the image does not
            load and ``ignore_empty`` is set.

        Raises:
            OSError: If the file cannot be read.
            BrokenImageError: If it is no image or a broken one.
        """
        if 'img' in results:
            image = results['img']
            size = image.shape[:2]
            boxes = self._draw(size)
        else:
            try:
                image, size, boxes = self._load(results['img_path'])
            except Exception:
                # Of any kind: backends raise what they like.
                if self.ignore_empty:
                    return None
                raise
        results['img'] = [
            self.resize(cut(image, size, box), self.crop.scale)
            for box in boxes
        ]
        results['img_shape'] = results['ori_shape'] = size
        return results

    def _load(self, path: str) -> tuple[np.ndarray, tuple, list]:
        """Pixels, size of the image before reduction, and two boxes."""
        content = fileio.get(path, backend_args=self.backend_args)
        if content is None:  # mmengine's word for "no such key" of LMDB
            raise FileNotFoundError(
                f'{path!r} is not in the storage that backend_args '
                f'{self.backend_args} name'
            )
        header = read_header(content)
        if header is not None:
            size = header.size
            boxes = self._draw(size)
            reduction = self._reduction(boxes)
            if size[0] * size[1] > self.max_pixels:
                least = fitting_reduction(content, path, self.max_pixels)
                reduction = max(reduction, least)
            image = decode(content, path, reduction, header.plain)
            if image.shape[:2] == reduced_size(size, reduction):
                return image, size, boxes
        # No JPEG, or one whose header Pillow and OpenCV read differently.
        image = decode_whole(content, path, self.max_pixels)
        size = image.shape[:2]
        return image, size, self._draw(size)

    def _draw(self, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Two boxes (top, left, height, width)."""
        blank = np.broadcast_to(np.uint8(0), size)  # no memory behind it
        return [self.crop.rand_crop_params(blank) for _ in range(2)]

    def _reduction(self, boxes: list) -> int:
        """The largest that leaves no box smaller than its view."""
        height = min(box[2] for box in boxes)
        width = min(box[3] for box in boxes)
        for reduction in _REDUCTIONS:
            least = [reduction * side for side in self.crop.scale]
            if height >= least[0] and width >= least[1]:
                return reduction
        return 1

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={self.crop.scale}, '
            f'crop_ratio_range={self.crop.crop_ratio_range}, '
            f'aspect_ratio_range={self.crop.aspect_ratio_range}, '
            f'max_attempts={self.crop.max_attempts}, '
            f'antialias={self.resize is resize_antialiased}, '
            f'ignore_empty={self.ignore_empty}, '
            f'backend_args={self.backend_args})'
        )


def cut(
    image: np.ndarray,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
) -> np.ndarray:
    """Cut a box from an image.

    Args:
        image (np.ndarray): (h, w, channels) or (h, w), perhaps reduced.
        size (tuple[int, int]): Height and width that ``box`` refers to.
        box (tuple[int]): Top, left, height and width.

    Returns:
        np.ndarray: (height, width, channels) of it, nearly, if it is
        reduced; a view.
    """
    if image.ndim == 2:
        image = image[..., None]
    top, left, height, width = box
    rows = _part(top, height, size[0], image.shape[0])
    columns = _part(left, width, size[1], image.shape[1])
    return image[rows, columns]


def resize_antialiased(image: np.ndarray, scale: Sequence[int]) -> np.ndarray:
    """Resize as Pillow does, bilinear.

    Args:
        image (np.ndarray): (h, w, channels).
        scale (Sequence[int]): Height and width of the result.

    Returns:
        np.ndarray: (*scale, channels), a view of memory in which the
        channels are outermost: ``PackInputs`` need not copy it.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    view = functional.interpolate(
        tensor[None],
        tuple(scale),
        mode='bilinear',
        align_corners=False,
        antialias=True,
    )
    return view[0].contiguous().permute(1, 2, 0).numpy()


def resize_bilinear(image: np.ndarray, scale: Sequence[int]) -> np.ndarray:
    """Resize as OpenCV does, bilinear; see :func:`resize_antialiased`."""
    height, width = scale
    planes = np.empty((image.shape[2], height, width), image.dtype)
    view = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.split(view, list(planes))
    return planes.transpose(1, 2, 0)


def _part(offset: int, length: int, whole: int, pixels: int) -> slice:
    """Where a stretch of ``whole`` lies among ``pixels``."""
    if pixels == whole:
        return slice(offset, offset + length)
    size = max(1, round(length * pixels / whole))
    start = min(round(offset * pixels / whole), pixels - size)
    return slice(start, start + size)
