"""One run at a time in a work folder, and none over another's checkpoints."""

import logging
import os
import re
import socket
from pathlib import Path
from typing import IO

from mmengine.logging import print_log

from ..exact.checkpoint_files import LAST

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

LOCK = 'run.lock'
# Tells restarts of a run that was refused that the checkpoints are not its.
REFUSED = 'run.refused'
_CHECKPOINT = re.compile(r'(epoch|iter|best)_.*\.pth')


def lock_folder(folder: Path) -> IO | None:
    """Keep other runs out of a folder until this process ends.

    The lock belongs to the process, not to the file ``run.lock``, which
    stays: a killed run leaves nothing to clean up.

    Args:
        folder (Path): A work folder; it is created.

    Returns:
        IO | None: The open file, which must be kept; None, with a warning, if
        the file system has no locks.

    Raises:
        BlockingIOError: If another run holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open('a+', encoding='utf-8')
    try:
        if fcntl is None:
            raise OSError('this system has no fcntl')
        # Unlike flock, not inherited by data loader workers, which may
        # outlive a killed run.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        owner = file.read().strip() or 'another process'
        raise BlockingIOError(
            f'{owner} is training in {folder}. Wait for it, stop it, or '
            'choose another work folder.'
        ) from None
    except OSError as error:
        print_log(
            f'{folder} cannot be locked ({error}): make sure that no other '
            'run writes to it.',
            logger='current',
            level=logging.WARNING,
        )
        return None
    file.truncate(0)
    file.write(f'Process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    return file


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has left something to resume in its work folder.

    ``last_checkpoint`` may name a file elsewhere; a run that was killed may
    have written its first checkpoint, but not that file.
    """
    return (folder / LAST).is_file() or bool(_checkpoints_in(folder))


def is_in(path: str | Path, folder: Path) -> bool:
    """Whether a file lies in a folder itself, whatever links lead there."""
    return Path(path).resolve().parent == folder.resolve()


def refuse_checkpoints(folder: Path) -> None:
    """Refuse to start a run among the checkpoints of another.

    Raises:
        FileExistsError: If there are any.
    """
    found = _checkpoints_in(folder)
    if found:
        (folder / REFUSED).touch()
        raise FileExistsError(
            f'{folder} has {len(found)} checkpoints of an earlier run, such '
            f'as {found[-1]}, which this run would replace or mix with its '
            'own. Continue that run with --resume and no file, choose another '
            '--work-dir, or remove them.'
        )


def _checkpoints_in(folder: Path) -> list[str]:
    return sorted(
        path.name
        for path in folder.glob('*.pth')
        if _CHECKPOINT.fullmatch(path.name)
    )
