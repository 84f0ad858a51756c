"""Files that are whole or absent."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that nobody, ever, sees a part of it.

    Once this returns, the file outlasts a power failure too.

    Args:
        path (Path): The file; its folder is made.
        write (Callable[[Path], Any]): Writes the content to a path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same folder is the same file system, where a rename is atomic.
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        write(part)
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """The same for content that is at hand.

    Args:
        path (Path): The file; its folder is made.
        content (str | bytes): What to write, text as UTF-8.
    """
    data = content.encode() if isinstance(content, str) else content
    write_whole(path, lambda part: part.write_bytes(data))


def write_json(path: Path, value: dict) -> None:
    """Write a value as JSON, whole or not at all."""
    write_atomic(path, json.dumps(value, indent=2) + '\n')


def remove_parts(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote.

    Args:
        folder (Path): Folder in which nobody is writing now.
    """
    for part in folder.glob('.*.part'):
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk too, where folders can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
