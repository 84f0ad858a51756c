"""What is wrong with an encoded image, which decoders would not tell.

Of a file that was cut off decoders give what they have, and gray below it.
"""

import io

import numpy as np
from PIL import Image, JpegImagePlugin

from .skip_broken import BrokenImageError

# Pillow's bound for decompression bombs; 0.5 GB decoded.
MAX_PIXELS = 178_956_970
JPEG_START = b'\xff\xd8\xff'
_GIF_STARTS = (b'GIF87a', b'GIF89a')
_PNG_START = b'\x89PNG\r\n\x1a\n'
_MOVES = 0x02  # flag of an extended WebP
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
# What may follow an 0xff between two scans or in one: a zero if it is a value,
# a restart, tables, comments, another scan, 0xff to fill a gap.
_MAY_FOLLOW = np.zeros(256, bool)
_MAY_FOLLOW[[0x00, 0xC4, 0xCC, *range(0xD0, 0xD8), *range(0xDA, 0xDE)]] = True
_MAY_FOLLOW[[*range(0xE0, 0xF0), 0xFE, 0xFF]] = True


def check_whole(content: bytes, name: str) -> None:
    """Refuse what is no image, or was cut off or overwritten, as far as seen.

    JPEGs must have all of their segments, no stray markers in their scans
    and an end; PNGs, GIFs and WebPs their end. Decoders find what else is
    wrong with them by their checksums; of JPEGs, which have none, damage
    within a scan can go unseen.

    Args:
        content (bytes): The file.
        name (str): What to call it in an error.

    Raises:
        BrokenImageError: That names the file and what is wrong.
    """
    fault = None
    if not content:
        fault = 'is empty (0 bytes)'
    elif content.startswith(JPEG_START):
        fault = _jpeg_fault(content)
    elif content.startswith(_PNG_START) and content.rfind(b'IEND') < 0:
        fault = 'is a PNG that was cut off: it has no IEND'
    elif content.startswith(_GIF_STARTS) and content.rstrip(b'\0')[-1] != 0x3B:
        fault = 'is a GIF that was cut off: it has no trailer'
    elif _is_webp(content) and (
        int.from_bytes(content[4:8], 'little') + 8 > len(content)
    ):
        fault = 'is a WebP that was cut off: it is shorter than it says'
    if fault is not None:
        raise broken(name, content, fault)


def broken(name: str, content: bytes, fault: str) -> BrokenImageError:
    """The error for a file with a fault."""
    size = f' ({len(content)} bytes)' if content else ''
    return BrokenImageError(
        f'{name} {fault}{size}. Remove or replace it, or let '
        'skip_broken=N of PartialLabels replace up to N such files'
    )


def too_large(
    height: int, width: int, name: str, max_pixels: int
) -> BrokenImageError:
    """The error for an image of more pixels than may be decoded."""
    gigabytes = 3 * height * width / 2**30
    return BrokenImageError(
        f'{name} would be decoded to {width} x {height} pixels, '
        f'{gigabytes:.1f} GB, and max_pixels is {max_pixels}: make it '
        'smaller, or set max_pixels of the transform that loads it to '
        f'{height * width}'
    )


def open_lazily(content: bytes) -> Image.Image | None:
    """Read the header of an image, by Pillow, whatever its size.

    Args:
        content (bytes): An encoded image.

    Returns:
        Image.Image | None: None if Pillow does not know it.
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
        except Exception:  # of any kind: the decoder decides
            continue
    return None


def is_animation(content: bytes) -> bool:
    """Whether it is a GIF, or a WebP of several frames."""
    return content.startswith(_GIF_STARTS) or (
        _is_webp(content)
        and content[12:16] == b'VP8X'
        and bool(content[20] & _MOVES)
    )


def _is_webp(content: bytes) -> bool:
    return content[:4] + content[8:12] == b'RIFFWEBP'


def _jpeg_fault(content: bytes) -> str | None:
    start = first_scan(content)
    if start is None:
        return 'is a JPEG that was cut off: it ends before its pixels'
    pixels = np.frombuffer(content, np.uint8)[start + 2 :]
    following = pixels[np.flatnonzero(pixels[:-1] == 0xFF) + 1]
    others = following[~_MAY_FOLLOW[following]]
    if not len(others):
        return 'is a JPEG that was cut off: it has no end'
    # What comes after the end is another matter.
    if others[0] != _END_OF_IMAGE:
        return 'is a damaged JPEG: there are stray markers in its pixels'
    return None


def first_scan(content: bytes) -> int | None:
    """Where the pixels begin, after segments that say how long they are."""
    place = 2
    while place + 4 <= len(content):
        marker = content[place + 1]
        if content[place] != 0xFF or marker == 0xFF:
            place += 1  # what fills the gap between two segments
        elif marker == _START_OF_SCAN:
            return place
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            length = int.from_bytes(content[place + 2 : place + 4], 'big')
            place += 2 + length
    return None
