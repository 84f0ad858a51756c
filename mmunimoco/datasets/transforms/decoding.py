"""Encoded images to pixels, as mmcv decodes them, and reduced on the way."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

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
_JPEG_START = b'\xff\xd8\xff'
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
    if not content.startswith(_JPEG_START):
        return None
    try:
        with Image.open(io.BytesIO(content), formats=['JPEG']) as image:
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
        np.ndarray: (h, w, 3) uint8, BGR; gray and CMYK converted, rotated
        as EXIF says.

    Raises:
        ValueError: If it cannot be decoded.
    """
    image = None
    if plain and reduction == 1 and simplejpeg is not None:
        image = _decode_plain(content)
    if image is None and content:
        buffer = np.frombuffer(content, np.uint8)
        image = cv2.imdecode(buffer, _FLAGS[reduction])
    if image is None:
        raise ValueError(
            f'{name} is no image that OpenCV can decode ({len(content)} '
            'bytes). Remove or replace it, or set ignore_empty=True'
        )
    return image


def _decode_plain(content: bytes) -> np.ndarray | None:
    """Decode by simplejpeg; None where it finds damage: OpenCV decides."""
    try:
        return simplejpeg.decode_jpeg(content, 'BGR')
    except ValueError:
        return None
