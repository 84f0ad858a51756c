"""The newest checkpoint of a run that can be read."""

import logging
from collections.abc import Callable
from pathlib import Path

from mmengine.logging import print_log

from mmunimoco.utils.safe_load import read_checkpoint

LAST = 'last_checkpoint'


def find_readable(
    work_dir: Path, folder: Path, is_checkpoint: Callable[[str], bool]
) -> tuple[Path | None, list[Path]]:
    """Find the checkpoint to go on from, read to its end.

    That is the one which ``last_checkpoint`` in the work folder names; if it
    is damaged or gone, the one that was written last of those that can be
    read. A word in the log says so.

    Args:
        work_dir (Path): Folder of the run.
        folder (Path): Where its checkpoints are.
        is_checkpoint (Callable[[str], bool]): Whether a file name is that of
            a checkpoint to resume from.

    Returns:
        tuple[Path | None, list[Path]]: The checkpoint, None if there is
        nothing to resume, and those that were passed over because they are
        damaged.

    Raises:
        ValueError: If there are checkpoints, but none that can be read.
    """
    named = _named(work_dir, folder)
    others = [
        path
        for path in folder.glob('*')
        if path != named and is_checkpoint(path.name) and path.is_file()
    ]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    candidates = others if named is None else [named, *others]
    faults, damaged = [], []
    for path in candidates:
        try:
            checkpoint = read_checkpoint(str(path))
        except (OSError, ValueError) as error:
            faults.append(str(error))
            if path.is_file():
                damaged.append(path)
            continue
        if 'message_hub' in checkpoint:
            if path != named:
                _say_which(path, work_dir, faults)
            return path, damaged
        faults.append(f'{path} holds weights alone')
    if faults:
        raise ValueError(
            f'none of the {len(faults)} checkpoints in {folder} can be '
            f'resumed: {"; ".join(faults)}. To start anew, use another '
            '--work-dir, or none of --resume'
        )
    return None, []


def _named(work_dir: Path, folder: Path) -> Path | None:
    """The file that ``last_checkpoint`` names, also if it is gone."""
    try:
        text = (work_dir / LAST).read_text().strip()
    except (OSError, ValueError):
        return None
    if not text:
        return None
    # The folder may have been moved since, or the path is of another folder
    # to start from.
    path = folder / Path(text).name
    return path if path.is_file() or not Path(text).is_file() else Path(text)


def _say_which(path: Path, work_dir: Path, faults: list[str]) -> None:
    why = '; '.join(faults) or f'{work_dir / LAST} names none'
    print_log(
        f'Resuming from {path}, the newest checkpoint that can be read: {why}',
        logger='current',
        level=logging.WARNING,
    )
