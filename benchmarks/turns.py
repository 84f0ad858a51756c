"""Let processes prepare side by side, and measure one at a time.

What a GPU measures needs minutes of compilation by the CPU beforehand. So
``gpu.sh`` starts all parts at once and names a file in ``$BENCHMARK_TURNS``.
A process holds a shared lock of it while it prepares, and while it measures an
exclusive one, which is granted when nobody prepares or measures.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

FILE = 'BENCHMARK_TURNS'


def are_taken() -> bool:
    """Whether other processes may be preparing or measuring."""
    return FILE in os.environ


def preparing() -> AbstractContextManager[None]:
    """Return a context in which others may prepare, but not measure."""
    return _locked(fcntl.LOCK_SH)


def measuring() -> AbstractContextManager[None]:
    """Return a context in which no other process prepares or measures."""
    return _locked(fcntl.LOCK_EX)


@contextmanager
def _locked(kind: int) -> Iterator[None]:
    path = os.environ.get(FILE)
    if not path:
        yield
        return
    with open(path, 'a') as file:
        fcntl.flock(file, kind)  # released with the file
        yield
