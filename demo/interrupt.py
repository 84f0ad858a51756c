"""Ctrl-C that takes effect at a safe point."""

import signal
from types import FrameType


class SafeInterrupt:
    """Context that defers SIGINT and SIGTERM until :meth:`check` is called.

    A training step or a checkpoint is completed first; a second signal
    interrupts at once. Data loader workers forked inside inherit the handler,
    so the main process alone reacts.
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
        """Raise KeyboardInterrupt if a signal was received."""
        if self.requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        # Prints nothing: the main program may be in the middle of a write.
        self.requested = True
