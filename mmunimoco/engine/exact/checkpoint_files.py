"""Checkpoint files: written as a whole, and the newest readable one found."""

import logging
from collections.abc import Callable
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from mmunimoco.utils.atomic import write_atomic
from mmunimoco.utils.safe_load import read_checkpoint

ATOMIC = 'mmunimoco_atomic'  # mmengine's name of AtomicBackend
LAST = 'last_checkpoint'


class AtomicBackend(LocalBackend):
    """mmengine's ``LocalBackend``, which never leaves a partial file.

    A file is written beside its destination, flushed to the disk and renamed:
    if the process is killed in between or the disk is full, the old file
    stays.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file; its folder is created.

        Args:
            obj (bytes): The content.
            filepath (str | Path): The file.
        """
        write_atomic(Path(filepath), obj)


def find_readable(
    work_dir: Path, folder: Path, is_checkpoint: Callable[[str], bool]
) -> tuple[Path | None, list[Path]]:
    """Find the checkpoint to resume from, and read it to its end.

    This is the one named in ``last_checkpoint`` of the work folder; if that
    is damaged or missing, the most recently written one that can be read,
    with a warning.

    Args:
        work_dir (Path): Folder of the run.
        folder (Path): Folder of its checkpoints.
        is_checkpoint (Callable[[str], bool]): Whether a file name is that of
            a checkpoint to resume from.

    Returns:
        tuple[Path | None, list[Path]]: The checkpoint, None if there is
        nothing to resume, and the damaged ones that were skipped.

    Raises:
        ValueError: If there are checkpoints, but none can be resumed.
    """
    named = _named(work_dir, folder)
    others = [
        path
        for path in folder.glob('*')
        if path != named and is_checkpoint(path.name) and path.is_file()
    ]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    faults, damaged = [], []
    for path in others if named is None else [named, *others]:
        try:
            checkpoint = read_checkpoint(str(path))
        except (OSError, ValueError) as error:
            faults.append(str(error))
            if path.is_file():
                damaged.append(path)
            continue
        if 'message_hub' not in checkpoint:
            faults.append(f'{path} holds only weights')
            continue
        if path != named:
            reason = '; '.join(faults) or f'{work_dir / LAST} names none'
            print_log(
                f'Resuming from {path}, the newest checkpoint that can be '
                f'read: {reason}',
                logger='current',
                level=logging.WARNING,
            )
        return path, damaged
    if faults:
        raise ValueError(
            f'none of the {len(faults)} checkpoints in {folder} can be '
            f'resumed: {"; ".join(faults)}. To start from scratch, use '
            'another --work-dir, or omit --resume'
        )
    return None, []


def _named(work_dir: Path, folder: Path) -> Path | None:
    """The file named in ``last_checkpoint``, even if it does not exist."""
    try:
        text = (work_dir / LAST).read_text().strip()
    except (OSError, ValueError):
        return None
    if not text:
        return None
    # The folder may have been moved since, or the path may be in another
    # folder.
    path = folder / Path(text).name
    return path if path.is_file() or not Path(text).is_file() else Path(text)


register_backend(ATOMIC, AtomicBackend, force=True)
