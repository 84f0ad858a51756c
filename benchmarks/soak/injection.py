"""Faults, injected into a run from outside."""

import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .checkpoints import Checkpoints
from .plan import Fault
from .record import failed_saves
from .run import WatchedRun

# Of the size of a checkpoint, what fits on the "disk".
_FITS = 0.5


def inject(fault: Fault, run: WatchedRun, step_seconds: float) -> bool:
    """Inject a fault, a part of a step after its step.

    Args:
        fault (Fault): The fault.
        run (WatchedRun): The run, which has done that step.
        step_seconds (float): What a step takes.

    Returns:
        bool: Whether it could be done.
    """
    moment = run.clock() + fault.delay * step_seconds
    run.wait(lambda: run.clock() >= moment, pause=0.001)
    if not run.training.is_running():
        return False
    try:
        return _INJECTIONS[fault.kind](fault, run)
    except ProcessLookupError:  # It was just ending.
        return False


def _kill(fault: Fault, run: WatchedRun) -> bool:
    run.training.signal(fault.rank, signal.SIGKILL)
    return True


def _kill_group(fault: Fault, run: WatchedRun) -> bool:
    run.training.kill_all()
    return True


def _kill_worker(fault: Fault, run: WatchedRun) -> bool:
    workers = run.training.workers(fault.rank)
    if not workers:
        return False
    victim = random.Random(fault.place).choice(workers)
    os.kill(victim.pid, signal.SIGKILL)
    return True


def _kill_saving(fault: Fault, run: WatchedRun) -> bool:
    """Kill the process that writes, while half a file is there."""
    checkpoints = Checkpoints(run.work_dir)
    there = run.wait(lambda: bool(checkpoints.parts()), pause=0.0005)
    run.training.signal(0, signal.SIGKILL)
    return there


def _sigterm(fault: Fault, run: WatchedRun) -> bool:
    run.training.signal(fault.rank, signal.SIGTERM)
    return True


def _full_disk(fault: Fault, run: WatchedRun) -> bool:
    """Have no room for the next checkpoint, but for half of one.

    A limit on the size of files is as good as a full disk: the write fails in
    the midst of it.
    """
    # The first one has to come to its end.
    run.wait(lambda: bool(_sizes(run)))
    before = len(failed_saves(run.training.said()))
    with _limit(run.training.sessions[0], int(_FITS * min(_sizes(run)))):
        return run.wait(
            lambda: len(failed_saves(run.training.said())) > before, pause=0.1
        )


def _sizes(run: WatchedRun) -> list[int]:
    return [path.stat().st_size for path in run.work_dir.glob('iter_*.pth')]


@contextmanager
def _limit(pid: int, size: int) -> Iterator[None]:
    """Limit the size of the files that a process writes, for a while."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


_INJECTIONS: dict[str, Callable[[Fault, WatchedRun], bool]] = dict(
    kill=_kill,
    kill_group=_kill_group,
    kill_worker=_kill_worker,
    kill_saving=_kill_saving,
    sigterm=_sigterm,
    full_disk=_full_disk,
)
