"""A limit of time that is kept, whatever the code in it waits for."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class OutOfTime(BaseException):
    """The time is up. No ``Exception``: compilers catch and wrap those."""


class Budget:
    """Seconds to spend from now on.

    Args:
        seconds (float): Defaults to no limit.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; negative once overspent."""
        return self._end - time.monotonic()

    def share(self, count: int) -> 'Budget':
        """Return the budget of the next of ``count`` equal parts."""
        return Budget(self.left() / count)

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Raise :class:`OutOfTime` in the body when the time is up.

        In the main thread, between two instructions of Python; code in C++ is
        waited for. Limits can be nested.
        """
        left = self.left()
        if left == math.inf:
            yield
            return
        handler = signal.signal(signal.SIGALRM, _ring)
        start = time.monotonic()
        outer = signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))[0]
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if outer:
                rest = outer - (time.monotonic() - start)
                signal.setitimer(signal.ITIMER_REAL, max(rest, 1e-3))


def _ring(*_) -> NoReturn:
    raise OutOfTime
