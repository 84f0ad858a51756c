"""Hooks for configs: faults in the middle of a run."""

import os
import signal
import time
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class RankFault(Hook):
    """Kill rank 1 before the third step, and later a worker of it.

    That is a worker of its data loader, before the fifth step, in a job that
    torchrun has restarted.

    Args:
        folder (str): Each rank writes its process id and those of its workers
            to a file there, and the faulty one the time, to ``fault``.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def before_train_iter(self, runner, *_, **__) -> None:
        """Cause the fault if it is time."""
        restarts = int(os.environ['TORCHELASTIC_RESTART_COUNT'])
        if runner.iter != 2 + 2 * restarts:
            return
        workers = children()
        text = '\n'.join(map(str, [os.getpid(), *workers]))
        (self.folder / f'pids_{get_rank()}_{restarts}').write_text(text)
        if get_rank() == 1:
            (self.folder / 'fault').write_text(str(time.time()))
            os.kill(workers[0] if restarts else os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class FolderLost(Hook):
    """Replace a folder by a file, once; what it held is moved beside it.

    Nothing can be written there then, not even by a superuser, for whom
    permissions do not count.

    Args:
        folder (str): The folder.
        step (int): Steps done before.
    """

    def __init__(self, folder: str, step: int) -> None:
        self.folder = Path(folder)
        self.step = step

    def before_train_iter(self, runner, *_, **__) -> None:
        """Replace it if it is time."""
        moved = self.folder.with_suffix('.moved')
        if runner.iter == self.step and not moved.exists():
            self.folder.rename(moved)
            self.folder.touch()


def children() -> list[int]:
    """Process ids of the data loader's workers."""
    me = os.getpid()
    return [
        int(path.name)
        for path in Path('/proc').glob('[0-9]*')
        if parent_of(path.name) == me
    ]


def parent_of(pid: int | str) -> int | None:
    """The parent of a running process; None if the process has ended."""
    try:
        state, parent = (
            Path(f'/proc/{pid}/stat')
            .read_text()
            .rpartition(')')[2]
            .split()[:2]
        )
    except OSError:
        return None
    return None if state == 'Z' else int(parent)
