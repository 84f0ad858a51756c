"""Resident memory of a run, and whether it grows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# Growth over the undisturbed run that counts as none: what an allocator does.
_GROWTH_MIB = 32.0
# How far a start may be above the undisturbed run.
_LEVEL_SHARE = 0.1
# The part of the samples in which a process still gets to its size.
_WARM_UP = 1 / 3
_FEWEST_SAMPLES = 6
_MOST_SAMPLES = 100


@dataclass(frozen=True)
class Sample:
    """Resident memory at one moment.

    Args:
        seconds (float): Since the soak began.
        start (int): Number of the start of the run.
        step (int): Steps done.
        main (float): Of the main processes, in MiB.
        workers (float): Of all others: data loader workers. Pages that they
            share with the main process count again.
    """

    seconds: float
    start: int
    step: int
    main: float
    workers: float

    @property
    def total(self) -> float:
        """All of it, in MiB."""
        return self.main + self.workers


def judge_memory(
    undisturbed: Sequence[Sample], disturbed: Sequence[Sample]
) -> dict[str, Any]:
    """Judge whether memory is flat.

    Within the undisturbed run, which is the longest without a break: the
    slope is the median of the slopes between all pairs of samples after its
    first third, so that a validation does not count as a slope. Over the
    starts of the other one: the median of each.

    Args:
        undisturbed (Sequence[Sample]): Of the undisturbed run.
        disturbed (Sequence[Sample]): Of the other one.

    Returns:
        dict: The numbers and their bounds; ``growth_mib`` is None where there
        are too few samples for a word.
    """
    steady = [s for s in undisturbed if s.step > 0]
    steady = steady[int(len(steady) * _WARM_UP) :]
    enough = len(steady) >= _FEWEST_SAMPLES
    level = float(np.median([s.total for s in steady])) if enough else None
    steps = steady[-1].step - steady[0].step if enough else 0
    slope = _slope(steady) if enough else None
    return dict(
        undisturbed_median_mib=_round(level),
        steps_judged=steps,
        growth_mib=_round(slope * steps if enough else None),
        growth_bound_mib=_GROWTH_MIB,
        # Less than this stays unseen.
        smallest_leak_seen_kib_per_step=_round(
            1024 * _GROWTH_MIB / steps if steps else None
        ),
        medians_of_starts_mib=_medians(disturbed),
        level_bound_mib=_round(level * (1 + _LEVEL_SHARE) if enough else None),
    )


def thin_out(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """As the results hold the samples: a hundred of them at most."""
    step = max(1, -(-len(samples) // _MOST_SAMPLES))
    return [
        {key: round(value, 1) for key, value in asdict(sample).items()}
        for sample in samples[::step]
    ]


def _slope(samples: Sequence[Sample]) -> float:
    """MiB a step, the median over all pairs (Theil and Sen)."""
    chosen = samples[:: max(1, len(samples) // 300)]
    steps = np.array([sample.step for sample in chosen], dtype=float)
    totals = np.array([sample.total for sample in chosen])
    before, after = np.triu_indices(len(chosen), 1)
    apart = steps[after] > steps[before]
    if not apart.any():
        return 0.0
    rises = (totals[after] - totals[before])[apart]
    return float(np.median(rises / (steps[after] - steps[before])[apart]))


def _medians(samples: Sequence[Sample]) -> dict[str, float]:
    """Median of each start that got to train for a while."""
    totals: dict[int, list[float]] = {}
    for sample in samples:
        if sample.step > 0:
            totals.setdefault(sample.start, []).append(sample.total)
    return {
        str(start): _round(float(np.median(values)))
        for start, values in totals.items()
        if len(values) >= _FEWEST_SAMPLES
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
