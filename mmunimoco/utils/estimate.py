"""How long the rest will take."""

import time

# The weights of the stages are guesses in seconds; until this much of them is
# done they count more than what this machine has shown.
PRIOR_SECONDS = 20.0


class Estimate:
    """Remaining time of stages with guessed lengths, several at a time.

    Args:
        weights (dict[str, float]): Name of each stage that is to run ->
            guessed seconds.
        jobs (int): How many run at a time. Defaults to 1.
    """

    def __init__(self, weights: dict[str, float], jobs: int = 1) -> None:
        self.weights = weights
        self.total = sum(weights.values())
        self._done = dict.fromkeys(weights, 0.0)
        self._guessed_pace = 1 / jobs
        self._start = time.monotonic()

    def advance(self, name: str, fraction: float) -> None:
        """Note that a fraction of a stage is done."""
        self._done[name] = min(max(fraction, 0.0), 1.0)

    @property
    def done(self) -> float:
        """Guessed seconds of what is done."""
        return sum(self.weights[n] * part for n, part in self._done.items())

    @property
    def fraction(self) -> float:
        """Part of the work that is done, 0 ... 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def seconds_left(self) -> float:
        """Remaining seconds."""
        elapsed = time.monotonic() - self._start
        guessed = PRIOR_SECONDS * self._guessed_pace
        pace = (elapsed + guessed) / (self.done + PRIOR_SECONDS)
        return max(0.0, self.total - self.done) * pace


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
