"""Times of several things, taken in turns so that they compare."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

# How a ratio was measured, for the report.
METHOD = (
    'wall clock; contestants in turns, in another order each round; ratios '
    'are taken within a round; median and quartiles over the rounds'
)


def time_interleaved(
    contestants: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: str,
    warmup: int = 1,
    tick: Callable[[], Any] | None = None,
) -> dict[str, list[float]]:
    """Time functions in turns.

    Whatever else the machine does, and however its clock changes, meets all
    of them alike.

    Args:
        contestants (Mapping[str, Callable]): What to time, by name.
        repeats (int): Rounds that are timed.
        device (str): 'cpu' or 'cuda', where work may be queued.
        warmup (int): Rounds before the clock starts. Defaults to 1.
        tick (Callable, optional): Called after each round.

    Returns:
        dict[str, list[float]]: Seconds of each round.
    """
    names = list(contestants)
    seconds = {name: [] for name in names}
    for index in range(warmup + repeats):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            elapsed = stopwatch(contestants[name], device)
            if index >= warmup:
                seconds[name].append(elapsed)
        if tick is not None:
            tick()
    return seconds


def stopwatch(function: Callable[[], Any], device: str) -> float:
    """Seconds that a call takes until its work on the device is done."""
    wait(device)
    start = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - start


def wait(device: str) -> None:
    """Wait until the work on the device is done."""
    if device == 'cuda':
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Summarise measurements.

    Args:
        values (Sequence[float]): At least one.

    Returns:
        dict: ``median``, ``q1`` and ``q3`` (the quartiles) and ``n``.
    """
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    return dict(
        median=_digits(median), q1=_digits(q1), q3=_digits(q3), n=len(values)
    )


def ratio_spread(
    ours: Sequence[float], theirs: Sequence[float]
) -> dict[str, float | int]:
    """Summarise the ratio ours / theirs over the rounds of both."""
    pairs = zip(ours, theirs, strict=True)
    return spread([mine / other for mine, other in pairs])


def _digits(value: float) -> float:
    """Five significant digits: more are never measured."""
    return float(f'{value:.5g}')
