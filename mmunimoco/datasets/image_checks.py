"""Detect truncated and damaged images, which decoders do not report.

For a truncated file, decoders return what they have and fill the rest with
gray. Strict decoding by simplejpeg would report more, but it also rejects
files with a few stray bytes, of which ImageNet has some and which look fine.
"""

import numpy as np

JPEG_START = b'\xff\xd8\xff'
_GIF_STARTS = (b'GIF87a', b'GIF89a')
_PNG_START = b'\x89PNG\r\n\x1a\n'
_ANIMATED = 0x02  # flag of an extended WebP
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
# Ends the message about one file, where it stands alone.
ADVICE = '. Remove or replace it, or wrap the dataset in '
ADVICE += 'SkipBrokenImages(max_broken=N) to replace up to N such files'
# What may follow 0xff inside or between scans: an escaped value (0x00), a
# restart, tables, comments, the next scan, or 0xff as padding.
_MAY_FOLLOW = np.zeros(256, bool)
_MAY_FOLLOW[[0x00, 0xC4, 0xCC, *range(0xD0, 0xD8), *range(0xDA, 0xDE)]] = True
_MAY_FOLLOW[[*range(0xE0, 0xF0), 0xFE, 0xFF]] = True


class BrokenImageError(ValueError):
    """An image that cannot be read correctly, or too many of them."""


def check_complete(content: bytes, name: str) -> None:
    """Reject an image that is truncated or visibly overwritten.

    A JPEG must have all of its segments, no unexpected markers in its scans
    and an end; PNG, GIF and WebP must have their end. Their checksums let
    decoders find other damage; JPEG has none, so damage within a scan can go
    undetected.

    Args:
        content (bytes): The file.
        name (str): Name of the file for the error message.

    Raises:
        BrokenImageError: If the image is incomplete.
    """
    fault = None
    if not content:
        fault = 'is empty (0 bytes)'
    elif content.startswith(JPEG_START):
        fault = _jpeg_fault(content)
    elif content.startswith(_PNG_START) and content.rfind(b'IEND') < 0:
        fault = 'is a truncated PNG: it has no IEND'
    elif content.startswith(_GIF_STARTS) and content.rstrip(b'\0')[-1] != 0x3B:
        fault = 'is a truncated GIF: it has no trailer'
    elif _is_webp(content) and (
        int.from_bytes(content[4:8], 'little') + 8 > len(content)
    ):
        fault = 'is a truncated WebP: it is shorter than its header says'
    if fault is not None:
        raise broken(name, content, fault)


def broken(name: str, content: bytes, fault: str) -> BrokenImageError:
    """Build the error for a file with a fault."""
    size = f' ({len(content)} bytes)' if content else ''
    return BrokenImageError(f'{name} {fault}{size}{ADVICE}')


def is_animation(content: bytes) -> bool:
    """Whether it is a GIF, or a WebP of several frames."""
    return content.startswith(_GIF_STARTS) or (
        _is_webp(content)
        and content[12:16] == b'VP8X'
        and bool(content[20] & _ANIMATED)
    )


def _is_webp(content: bytes) -> bool:
    return content[:4] + content[8:12] == b'RIFFWEBP'


def _jpeg_fault(content: bytes) -> str | None:
    start = _find_scan(content)
    if start is None:
        return 'is a truncated JPEG: it ends before its pixels'
    pixels = np.frombuffer(content, np.uint8)[start:]
    markers = pixels[np.flatnonzero(pixels[:-1] == 0xFF) + 1]
    unexpected = markers[~_MAY_FOLLOW[markers]]
    if not len(unexpected):
        return 'is a truncated JPEG: it has no end marker'
    # Anything may follow the end.
    if unexpected[0] != _END_OF_IMAGE:
        return 'is a damaged JPEG: there are stray markers in its pixels'
    return None


def _find_scan(content: bytes) -> int | None:
    """Return where the first scan begins, skipping segments by their length.

    A thumbnail in one of the segments has markers of its own.
    """
    position = 2
    while position + 4 <= len(content):
        marker = content[position + 1]
        if content[position] != 0xFF or marker == 0xFF:
            position += 1  # padding between segments
        elif marker == _START_OF_SCAN:
            return position + 2
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            length = content[position + 2 : position + 4]
            position += 2 + int.from_bytes(length, 'big')
    return None
