"""Write files atomically: readers see the old file or the whole new one."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file atomically.

    Once this returns, the file survives a power failure too.

    Args:
        path (Path): The file; its folder is created if needed. A symbolic
            link stays, and the file that it names is written.
        write (Callable[[Path], Any]): Writes the content to a given path.

    Raises:
        OSError: If that fails.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so on the same file system: the rename is atomic.
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        try:
            write(part)
        except RuntimeError as error:  # torch's, of a full disk too
            raise OSError(f'{path} cannot be written: {error}') from error
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a text or bytes atomically.

    Args:
        path (Path): The file; its folder is created if needed.
        content (str | bytes): The content; text is written as UTF-8.
    """
    data = content.encode() if isinstance(content, str) else content
    write_whole(path, lambda part: part.write_bytes(data))


def write_json(path: Path, value: dict) -> None:
    """Write a value as JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2) + '\n')


def remove_parts(folder: Path) -> None:
    """Remove temporary files of processes killed while writing.

    Args:
        folder (Path): A folder to which nobody is writing now.
    """
    for part in folder.glob('.*.part'):
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush the new name to the disk, where folders can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
