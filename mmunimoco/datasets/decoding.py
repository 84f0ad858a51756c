"""Encoded images to pixels, as mmcv decodes them, and reduced on the way."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from .image_checks import (
    JPEG_START,
    MAX_PIXELS,
    broken,
    check_whole,
    first_scan,
    is_animation,
    open_lazily,
    too_large,
)

try:
    import simplejpeg
except ImportError:  # not installed: OpenCV gives the same pixels
    simplejpeg = None

_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_ORIENTATION = 0x0112  # EXIF tag
_ON_ITS_SIDE = 5  # EXIF orientations from here on turn by 90 degrees


class JpegHeader(NamedTuple):
    """What is known of a JPEG before it is decoded.

    Attributes:
        size (tuple[int, int]): Height and width after the rotation that its
            EXIF data ask for.
        plain (bool): Whether it is RGB or gray and not to be rotated.
    """

    size: tuple[int, int]
    plain: bool


def read_header(content: bytes) -> JpegHeader | None:
    """Read the header of a JPEG, which takes microseconds.

    Args:
        content (bytes): An encoded image.

    Returns:
        JpegHeader | None: None if it is no JPEG, or a damaged one.
    """
    if not content.startswith(JPEG_START):
        return None
    return _quick_header(content) or _header_by_pillow(content)


def _quick_header(content: bytes) -> JpegHeader | None:
    """The header of a JPEG without EXIF data; None for others."""
    start = first_scan(content)
    if simplejpeg is None or start is None or b'Exif\0' in content[:start]:
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return JpegHeader((height, width), colors in ('YCbCr', 'RGB', 'Gray'))


def _header_by_pillow(content: bytes) -> JpegHeader | None:
    try:
        with open_lazily(content) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1)
            plain = image.mode in ('RGB', 'L') and turned == 1
    except Exception:
        # Whatever Pillow finds wrong with it, the decoder decides.
        return None
    on_its_side = isinstance(turned, int) and turned >= _ON_ITS_SIDE
    size = (width, height) if on_its_side else (height, width)
    return JpegHeader(size, plain)


def reduced_size(size: tuple[int, int], reduction: int) -> tuple[int, int]:
    """Height and width that libjpeg gives an image of ``size``."""
    return tuple(-(-side // reduction) for side in size)


def decode_whole(
    content: bytes, name: str, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode an image, a JPEG of too many pixels at a smaller size.

    Args:
        content (bytes): An encoded image of any kind that OpenCV knows.
        name (str): What to call it in an error.
        max_pixels (int): The most to decode. A JPEG of more, if it is not
            progressive, is decoded at a half, a quarter or an eighth of its
            height and width.

    Returns:
        np.ndarray: See :func:`decode`.

    Raises:
        BrokenImageError: If it cannot be decoded, or not so small.
    """
    return decode(content, name, fitting_reduction(content, name, max_pixels))


def fitting_reduction(content: bytes, name: str, max_pixels: int) -> int:
    """How many times smaller an image must be decoded to be small enough.

    Args:
        content (bytes): An encoded image.
        name (str): What to call it in an error.
        max_pixels (int): The most to decode.

    Returns:
        int: 1, or for a JPEG also 2, 4 or 8; not for a progressive one, which
        takes as much memory whatever it is decoded to.

    Raises:
        BrokenImageError: If it would be too large still.
    """
    image = open_lazily(content)
    if image is None:
        return 1  # OpenCV has a bound of its own
    sequential = image.format == 'JPEG' and not image.info.get('progressive')
    for reduction in (1, 2, 4, 8) if sequential else (1,):
        height, width = reduced_size((image.height, image.width), reduction)
        if height * width <= max_pixels:
            return reduction
    raise too_large(height, width, name, max_pixels)


def decode(
    content: bytes, name: str, reduction: int = 1, plain: bool = False
) -> np.ndarray:
    """Decode an image.

    Args:
        content (bytes): An encoded image of any kind that OpenCV knows.
        name (str): What to call it in an error.
        reduction (int): 1, 2, 4 or 8: how many times smaller to decode it.
        plain (bool): Whether :func:`read_header` calls it plain. simplejpeg,
            if installed, then takes a tenth less time for the same pixels.
            Defaults to False.

    Returns:
        np.ndarray: (h, w, 3) uint8, BGR; gray and CMYK converted, 16 bits
        scaled to 8, transparency left out, of an animation the first frame,
        rotated as EXIF says.

    Raises:
        BrokenImageError: If it cannot be decoded, or was cut off.
    """
    image = _decode_plain(content) if plain and reduction == 1 else None
    if image is not None:
        return image
    check_whole(content, name)
    if is_animation(content):  # which OpenCV reads since 4.11
        image = _decode_first_frame(content)
    else:
        buffer = np.frombuffer(content, np.uint8)
        image = cv2.imdecode(buffer, _FLAGS[reduction])
    if image is None:
        raise broken(
            name,
            content,
            'is no image that OpenCV can decode, or a damaged one',
        )
    return image


def _decode_plain(content: bytes) -> np.ndarray | None:
    """Decode by simplejpeg; None where that is for OpenCV to do.

    simplejpeg refuses whatever libjpeg would warn of, so what it decodes was
    not cut off.
    """
    if simplejpeg is None:
        return None
    try:
        return simplejpeg.decode_jpeg(content, 'BGR')
    except ValueError:
        return None


def _decode_first_frame(content: bytes) -> np.ndarray | None:
    """The first frame of a GIF or WebP, BGR; None if it is damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=['GIF', 'WEBP']) as image:
            return np.array(image.convert('RGB'))[..., ::-1].copy()
    except Exception:  # Pillow raises errors of many kinds
        return None
