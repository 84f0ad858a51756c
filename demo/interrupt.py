"""Ctrl-C that takes effect where nothing is half done."""

import signal
from types import FrameType


class SafeInterrupt:
    """Hold SIGINT and SIGTERM back until somebody asks.

    A training step or a checkpoint is brought to its end first. A second
    signal interrupts at once. Used as a context; data loader workers that are
    forked inside inherit the handler, and so leave the answer to the main
    process.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous = {}

    def __enter__(self) -> 'SafeInterrupt':
        for number in self.SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came; call at safe points."""
        if self.requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        # No word to the user from here: the main program may be in the midst
        # of writing one.
        self.requested = True
