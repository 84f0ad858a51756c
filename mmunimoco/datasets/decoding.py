"""Decode images as mmcv does, at a reduced size where possible."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

from .image_checks import (
    JPEG_START,
    BrokenImageError,
    broken,
    check_complete,
    is_animation,
)

try:
    import simplejpeg
except ImportError:  # optional: OpenCV gives the same pixels, 15 % slower
    simplejpeg = None

# Pillow's limit for decompression bombs, 0.5 GB decoded.
MAX_PIXELS = 178_956_970
_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_ORIENTATION = 0x0112  # EXIF tag
_ROTATED = range(5, 9)  # EXIF orientations that swap height and width


class ImageHeader(NamedTuple):
    """What is known of an image before it is decoded.

    Attributes:
        is_jpeg (bool): Whether it is a JPEG.
        size (tuple[int, int]): Height and width, after the rotation that the
            EXIF data of a JPEG ask for.
        reducible (bool): Whether decoding at a smaller size takes less
            memory: sequential JPEG, not progressive.
        plain (bool): Whether it is an RGB or gray JPEG without rotation.
        mode (str): Pillow's name for the kind of its pixels.
        on_device (bool): Whether a GPU's decoder gives the same pixels but
            for rounding and the interpolation of colour: a sequential JPEG
            that stores colours as YCbCr, without rotation.
        turned (bool): Whether it is a WebP that EXIF data turn, which Pillow
            follows and OpenCV before version 5 does not.
    """

    is_jpeg: bool
    size: tuple[int, int]
    reducible: bool
    plain: bool
    mode: str = 'RGB'
    on_device: bool = False
    turned: bool = False


def read_header(content: bytes) -> ImageHeader | None:
    """Read the header of an image with Pillow; about 50 microseconds.

    Args:
        content (bytes): An encoded image.

    Returns:
        ImageHeader | None: None if Pillow cannot read it.
    """
    image = _open_lazily(content)
    if image is None:
        return None
    size = (image.height, image.width)
    is_jpeg = content.startswith(JPEG_START)
    if not is_jpeg and image.format != 'WEBP':
        return ImageHeader(False, size, False, False, image.mode)
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data raise errors of many kinds
        orientation = None
    if not is_jpeg:
        turned = orientation != 1
        return ImageHeader(
            False, size, False, False, image.mode, turned=turned
        )
    if orientation in _ROTATED:
        size = size[::-1]
    plain = image.mode in ('RGB', 'L') and orientation == 1
    reducible = not image.info.get('progressive')
    on_device = reducible and plain and _stores_ycbcr(image)
    return ImageHeader(True, size, reducible, plain, image.mode, on_device)


def _stores_ycbcr(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether any decoder takes the three channels of a JPEG for YCbCr."""
    channels = [layer[0] for layer in getattr(image, 'layer', ())]
    # Adobe's marker tells RGB (0) from YCbCr (1).
    return channels == [1, 2, 3] and image.info.get('adobe_transform', 1) == 1


def _open_lazily(content: bytes) -> Image.Image | None:
    """``Image.open`` without its check for decompression bombs.

    The check raises without telling the size, and knows nothing of decoding
    at a reduced size.
    """
    if content.startswith(JPEG_START):
        kinds = [(JpegImagePlugin.JpegImageFile, None)]
    else:
        Image.init()
        kinds = Image.OPEN.values()
    for kind, accept in kinds:
        try:
            if accept is None or accept(content[:16]) is True:
                return kind(io.BytesIO(content), '')
        except Exception:  # of many kinds; the decoder decides
            continue
    return None


def reduced_size(size: tuple[int, int], reduction: int) -> tuple[int, int]:
    """Height and width of an image that libjpeg decodes at a reduction."""
    return tuple(-(-side // reduction) for side in size)


def min_reduction(
    header: ImageHeader | None, name: str, max_pixels: int
) -> int:
    """Return the reduction at which an image has at most ``max_pixels``.

    Args:
        header (ImageHeader, optional): Its header. None is let through:
            OpenCV has a limit of its own.
        name (str): Name of the file for the error message.
        max_pixels (int): The most pixels to decode.

    Returns:
        int: 1, or for a sequential JPEG also 2, 4 or 8. A progressive one
        takes as much memory at any size.

    Raises:
        BrokenImageError: If it has too many pixels at any reduction.
    """
    if header is None:
        return 1
    for reduction in (1, 2, 4, 8) if header.reducible else (1,):
        height, width = reduced_size(header.size, reduction)
        if height * width <= max_pixels:
            return reduction
    raise BrokenImageError(
        f'{name} would be decoded to {width} x {height} pixels, '
        f'{3 * height * width / 2**30:.1f} GB, but max_pixels is {max_pixels}'
        ': make it smaller, or set max_pixels of the transform that loads it '
        f'to {height * width}'
    )


def decode_whole(
    content: bytes, name: str, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode an image; a JPEG of too many pixels at a reduced size.

    Args:
        content (bytes): An encoded image of any format that OpenCV reads.
        name (str): Name of the file for error messages.
        max_pixels (int): The most pixels to decode. A sequential JPEG with
            more is decoded at 1/2, 1/4 or 1/8 of its height and width.

    Returns:
        np.ndarray: See :func:`decode`.

    Raises:
        BrokenImageError: If it cannot be decoded, or is too large.
    """
    reduction = min_reduction(read_header(content), name, max_pixels)
    return decode(content, name, reduction)


def decode(
    content: bytes, name: str, reduction: int = 1, plain: bool = False
) -> np.ndarray:
    """Decode an image.

    Args:
        content (bytes): An encoded image of any format that OpenCV reads.
        name (str): Name of the file for error messages.
        reduction (int): 1, 2, 4 or 8; height and width are divided by it.
        plain (bool): Whether :func:`read_header` says it is plain, so that
            simplejpeg may decode it. Defaults to False.

    Returns:
        np.ndarray: (h, w, 3) uint8, BGR. Gray and CMYK are converted, 16 bits
        scaled to 8, alpha is dropped, EXIF rotation is applied (to a WebP by
        OpenCV 5 alone); of an animation the first frame.

    Raises:
        BrokenImageError: If it cannot be decoded or is truncated.
    """
    if plain and reduction == 1 and simplejpeg is not None:
        try:
            # Strict: what it decodes is complete.
            return simplejpeg.decode_jpeg(content, 'BGR')
        except ValueError:  # perhaps a mere warning of libjpeg
            pass
    check_complete(content, name)
    if is_animation(content):  # only OpenCV >= 4.11 reads those
        image = _decode_first_frame(content)
    else:
        buffer = np.frombuffer(content, np.uint8)
        image = cv2.imdecode(buffer, _FLAGS[reduction])
    if image is None:
        raise broken(
            name, content, 'is not an image that OpenCV can decode, or damaged'
        )
    return image


def _decode_first_frame(content: bytes) -> np.ndarray | None:
    """First frame of a GIF or WebP as BGR, None if it is damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=['GIF', 'WEBP']) as image:
            return np.array(image.convert('RGB'))[..., ::-1].copy()
    except Exception:  # Pillow raises errors of many kinds
        return None
