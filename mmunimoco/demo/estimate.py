"""How long the rest will take."""

import time

# The weights of the stages are guesses in seconds; until this much of them is
# done they count more than what this machine has shown.
PRIOR_SECONDS = 20.0


class Estimate:
    """Remaining time of a list of stages with guessed lengths.

    Args:
        weights (list[float]): Guessed seconds of each stage that is to run.
    """

    def __init__(self, weights: list[float]) -> None:
        self.total = sum(weights)
        self.done = 0.0
        self.current = 0.0
        self._start = time.monotonic()

    def advance(self, weight: float, fraction: float) -> None:
        """Note that a fraction of the running stage is done."""
        self.current = weight * min(max(fraction, 0.0), 1.0)

    def complete(self, weight: float) -> None:
        """Note that the running stage is done."""
        self.done += weight
        self.current = 0.0

    @property
    def fraction(self) -> float:
        """Part of the work that is done, 0 ... 1."""
        if not self.total:
            return 1.0
        return min(1.0, (self.done + self.current) / self.total)

    @property
    def seconds_left(self) -> float:
        """Remaining seconds."""
        done = self.done + self.current
        elapsed = time.monotonic() - self._start
        pace = (elapsed + PRIOR_SECONDS) / (done + PRIOR_SECONDS)
        return max(0.0, self.total - done) * pace


def format_duration(seconds: float) -> str:
    """Write a duration for people: '45 s', '3 min 20 s', '1 h 05 min'.

    Args:
        seconds (float): The duration.

    Returns:
        str: The text.
    """
    seconds = round(seconds)
    if seconds < 60:
        return f'{seconds} s'
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f'{minutes} min {rest:02d} s'
    return f'{minutes // 60} h {minutes % 60:02d} min'
