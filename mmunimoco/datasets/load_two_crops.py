"""Decode an image once and cut two random crops from it."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.registry import TRANSFORMS
from torch.nn import functional

from .decoding import (
    MAX_PIXELS,
    decode,
    decode_whole,
    min_reduction,
    read_header,
    reduced_size,
)
from .loading import read_file

_REDUCTIONS = (2, 4, 8)


@TRANSFORMS.register_module()
class LoadTwoCrops(BaseTransform):
    """Load an image and cut two random crops from it, as uint8.

    Equivalent to ``CheckedLoadImageFromFile`` followed by ``MultiView`` of
    mmpretrain's ``RandomResizedCrop``; the rest of the augmentation is left to
    :class:`TwoViewAugment`. mmpretrain's own transform draws the crops, so a
    seed gives the same ones. They are drawn before a JPEG is decoded, so that
    a large photograph can be decoded at 1/2, 1/4 or 1/8 of its size where
    each crop still has at least as many pixels as its view.

    Required keys: ``img_path``, or ``img`` for datasets that hold their images
    in memory. Modified keys: ``img``, a list of two views of shape (H, W, 3),
    as from ``MultiView``, in BGR order if read from a file; ``img_shape`` and
    ``ori_shape``, (height, width) of the image.

    Args:
        scale (int | Sequence[int]): Size of the views, (height, width) or one
            number for both. Defaults to 224.
        crop_ratio_range (tuple[float]): Range of the area of a crop relative
            to the image. Defaults to (0.2, 1.0).
        aspect_ratio_range (tuple[float]): Range of the width of a crop
            divided by its height. Defaults to (3 / 4, 4 / 3).
        max_attempts (int): Number of draws before falling back to a central
            crop. Defaults to 10.
        antialias (bool): Whether to low-pass filter when shrinking. True
            gives the values of Pillow, and of
            ``RandomResizedCrop(backend='pillow')``; False gives those of
            ``backend='cv2'`` (plain bilinear), and an image takes about a
            sixth less time. Defaults to True.
        ignore_empty (bool): Whether to return None for an image that does not
            load, so that the dataset draws another one. Defaults to False.
        backend_args (dict, optional): How to read the file, see
            ``mmengine.fileio.get``. Defaults to None.
        max_pixels (int): The most pixels to decode, see
            :class:`CheckedLoadImageFromFile`. Defaults to 178 956 970.
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
        """Load the image and crop it twice.

        Args:
            results (dict): Annotation of a sample.

        Returns:
            dict | None: The annotation with the views; None if the image does
            not load and ``ignore_empty`` is set.

        Raises:
            OSError: If the file cannot be read.
            BrokenImageError: If it is broken or not an image.
        """
        if 'img' in results:
            image = results['img']
            size = image.shape[:2]
            views = self._cut(image, size, self._draw(size))
        else:
            try:
                path = results['img_path']
                content = read_file(path, self.backend_args)
                views, size = self._make_views(content, path)
            except Exception:  # storage backends raise errors of any kind
                if self.ignore_empty:
                    return None
                raise
        results['img'] = views
        results['img_shape'] = results['ori_shape'] = size
        return results

    def _make_views(
        self, content: bytes, path: str
    ) -> tuple[list, tuple[int, int]]:
        """Return two views and the size of the full image."""
        image, size, boxes = self._decode(content, path)
        return self._cut(image, size, boxes), size

    def _cut(self, image: np.ndarray, size: tuple, boxes: list) -> list:
        return [
            self.resize(cut(image, size, box), self.crop.scale)
            for box in boxes
        ]

    def _decode(
        self, content: bytes, path: str
    ) -> tuple[np.ndarray, tuple, list]:
        """Return pixels, size of the full image, and two boxes."""
        header = read_header(content)
        if header is not None and header.is_jpeg:
            size = header.size
            boxes = self._draw(size)
            reduction = max(
                self._reduction(boxes),
                min_reduction(header, path, self.max_pixels),
            )
            image = decode(content, path, reduction, header.plain)
            if image.shape[:2] == reduced_size(size, reduction):
                return image, size, boxes
        # Not a JPEG, or Pillow and OpenCV read its header differently.
        image = decode_whole(content, path, self.max_pixels)
        size = image.shape[:2]
        return image, size, self._draw(size)

    def _draw(self, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Draw two boxes (top, left, height, width)."""
        blank = np.broadcast_to(np.uint8(0), size)  # allocates nothing
        return [self.crop.rand_crop_params(blank) for _ in range(2)]

    def _reduction(self, boxes: list) -> int:
        """Return the largest that leaves no box smaller than its view."""
        view_height, view_width = self.crop.scale
        most = min(
            min(height // view_height, width // view_width)
            for _, _, height, width in boxes
        )
        return max((r for r in _REDUCTIONS if r <= most), default=1)

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
    """Cut a box out of an image that may have been decoded reduced.

    Args:
        image (np.ndarray): (h, w, channels) or (h, w).
        size (tuple[int, int]): Height and width of the full image.
        box (tuple[int]): Top, left, height and width in the full image.

    Returns:
        np.ndarray: The box, (height, width, channels), scaled like ``image``
        and rounded to whole pixels; shares its memory.
    """
    if image.ndim == 2:
        image = image[..., None]
    top, left, height, width = box
    rows = _part(top, height, size[0], image.shape[0])
    columns = _part(left, width, size[1], image.shape[1])
    return image[rows, columns]


def resize_antialiased(image: np.ndarray, scale: Sequence[int]) -> np.ndarray:
    """Resize with Pillow's bilinear filter.

    Args:
        image (np.ndarray): (h, w, channels).
        scale (Sequence[int]): Height and width of the result.

    Returns:
        np.ndarray: (*scale, channels), stored channels first, so that
        ``PackInputs`` need not copy it.
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
    """Resize with OpenCV's bilinear filter; otherwise the same as above."""
    height, width = scale
    planes = np.empty((image.shape[2], height, width), image.dtype)
    view = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.split(view, list(planes))
    return planes.transpose(1, 2, 0)


def _part(offset: int, length: int, whole: int, pixels: int) -> slice:
    """Map an interval of a side of length ``whole`` to ``pixels``."""
    if pixels == whole:
        return slice(offset, offset + length)
    size = max(1, round(length * pixels / whole))
    start = min(round(offset * pixels / whole), pixels - size)
    return slice(start, start + size)
