"""Hooks for configs: what may befall a run in mid-training."""

import os
import signal
import time
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class RankFault(Hook):
    """Have a fault before a step of one rank, once.

    Args:
        folder (str): Where every rank leaves a file with its process id and
            those of its workers, and the faulty one its time, ``fault``.
        kind (str): ``raise``, ``kill``, ``kill_worker`` or ``hang``.
        rank (int): Which has it.
        step (int): Steps done before.
    """

    def __init__(
        self, folder: str, kind: str, rank: int = 1, step: int = 2
    ) -> None:
        self.folder = Path(folder)
        self.fault = getattr(self, f'_{kind}')
        self.rank = rank
        self.step = step

    def before_train_iter(self, runner, *_, **__) -> None:
        """Have it."""
        if runner.iter != self.step:
            return
        workers = children()
        text = '\n'.join(map(str, [os.getpid(), *workers]))
        (self.folder / f'pids_{get_rank()}').write_text(text)
        fault = self.folder / 'fault'
        if get_rank() == self.rank and not fault.exists():
            fault.write_text(str(time.time()))
            self.fault(workers)

    def _raise(self, workers: list[int]) -> None:
        raise ArithmeticError('a fault of one rank')

    def _kill(self, workers: list[int]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _kill_worker(self, workers: list[int]) -> None:
        os.kill(workers[0], signal.SIGKILL)

    def _hang(self, workers: list[int]) -> None:
        time.sleep(3600)


@HOOKS.register_module()
class FolderLost(Hook):
    """Before a step a folder becomes a file; what it held is beside it.

    Nothing can be written there then, not even by a superuser, for whom
    permissions do not count.

    Args:
        folder (str): Which.
        step (int): Steps done before.
    """

    def __init__(self, folder: str, step: int) -> None:
        self.folder = Path(folder)
        self.step = step

    def before_train_iter(self, runner, *_, **__) -> None:
        """Lose it, unless that has been."""
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
    """The parent of a process that runs; None if it has ended."""
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
