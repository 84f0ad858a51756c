"""Faults of a soak: what is done to a run and to its checkpoints."""

import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .soak_run import Process, WatchedRun, find_processes
from .soak_verdict import failed_saves

BLOCK = 4096  # bytes that a corruption overwrites


def inject(run: WatchedRun, kind: str, rank: int) -> bool:
    """Disturb a run now.

    Args:
        run (WatchedRun): The run.
        kind (str): 'kill', 'kill_group', 'kill_worker', 'kill_saving',
            'sigterm' or 'full_disk'.
        rank (int): The training process that is hit.

    Returns:
        bool: Whether the fault could be injected.
    """
    main = run.mains[rank]
    if main.poll() is not None:  # it was just ending
        return False
    if kind == 'full_disk':
        return _fill_disk(run)
    if kind == 'kill_group':
        run.kill_all()
    elif kind == 'kill_worker':
        workers = _workers(main.pid)
        if not workers:
            return False
        os.kill(random.choice(workers).pid, signal.SIGKILL)
    elif kind == 'kill_saving':
        saving = run.wait(lambda: bool(partial_files(run)), pause=0.0005)
        run.mains[0].kill()
        return saving
    else:
        numbers = dict(kill=signal.SIGKILL, sigterm=signal.SIGTERM)
        main.send_signal(numbers[kind])
    return True


def partial_files(run: WatchedRun) -> list[str]:
    """Name the checkpoints that are being, or were only half, written."""
    return sorted(path.name for path in run.work_dir.glob('.*.part'))


def _workers(pid: int) -> list[Process]:
    """List the data loader workers of a process: its forks."""
    processes = find_processes([pid])
    own = [p.command for p in processes if p.pid == pid]
    return [p for p in processes if p.parent == pid and [p.command] == own]


def _fill_disk(run: WatchedRun) -> bool:
    """Let the next checkpoint fail half-way through its write.

    A limit on the size of files acts like a full disk.
    """

    def sizes() -> list[int]:
        return [p.stat().st_size for p in run.work_dir.glob('iter_*.pth')]

    run.wait(lambda: bool(sizes()))
    before = len(failed_saves(run.said()))
    with _limit_file_size(run.mains[0].pid, min(sizes()) // 2):
        return run.wait(
            lambda: len(failed_saves(run.said())) > before, pause=0.1
        )


@contextmanager
def _limit_file_size(pid: int, size: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


class Checkpoints:
    """The checkpoints of a work folder, found without the code under test."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self._damaged: dict[str, int] = {}  # file -> modification time

    def names(self) -> list[str]:
        """Name all checkpoints, the newest first."""
        paths = self.work_dir.glob('iter_*.pth')
        return [p.name for p in sorted(paths, key=_time, reverse=True)]

    def whole(self) -> list[str]:
        """Name those that can be resumed from, best first."""
        last = self.work_dir / 'last_checkpoint'
        named = Path(last.read_text()).name if last.is_file() else None
        names = [
            name
            for name in self.names()
            # One that was written again since its damage is whole.
            if self._damaged.get(name) != _time(self.work_dir / name)
        ]
        return sorted(names, key=lambda name: name != named)

    def damage(self, how: str | None, place: float) -> str | None:
        """Damage the checkpoint that a resume would take.

        Args:
            how (str | None): 'truncated', 'corrupted', or 'part_file', which
                leaves a half-written file beside it.
            place (float): Where in the file, 0 ... 1.

        Returns:
            str | None: The file; None if nothing was done because no older
            checkpoint would be left.
        """
        whole = self.whole()
        if how is None or len(whole) < 2:
            return None
        path = self.work_dir / whole[0]
        size = path.stat().st_size
        if how == 'part_file':
            part = path.with_name(f'.{path.name}.{os.getpid()}.part')
            part.write_bytes(path.read_bytes()[: int(size * place)])
            return part.name
        if how == 'truncated':
            os.truncate(path, int(size * place))
        else:
            with open(path, 'rb+') as file:
                file.seek(int((size - BLOCK) * place))
                file.write(random.Random(size).randbytes(BLOCK))
        self._damaged[path.name] = _time(path)
        return path.name


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns
