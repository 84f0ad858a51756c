"""Interleaved timing of contestants, and ratios between them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

METHOD = (
    'wall clock; contestants take turns, in a rotated order each round; '
    'ratios are taken within a round; median and quartiles over the rounds'
)


def time_interleaved(
    contestants: Mapping[Any, Callable[[], Any]],
    rounds: int,
    device: str,
    warmup: int = 1,
) -> dict[Any, list[float]]:
    """Time functions in turns, so background load affects all of them alike.

    Args:
        contestants (Mapping[Any, Callable]): Functions to time, by name.
        rounds (int): Number of timed rounds.
        device (str): 'cpu' or 'cuda'; CUDA is synchronised around each call.
        warmup (int): Rounds before the clock starts. Defaults to 1.

    Returns:
        dict[Any, list[float]]: Seconds per round of each contestant.
    """
    names = list(contestants)
    seconds = {name: [] for name in names}
    for index in range(warmup + rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            elapsed = stopwatch(contestants[name], device)
            if index >= warmup:
                seconds[name].append(elapsed)
    return seconds


def stopwatch(function: Callable[[], Any], device: str) -> float:
    """Return the seconds of one call, work queued on the device included."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait for all work that is queued on the device."""
    if device == 'cuda':
        torch.cuda.synchronize()


def quartiles(values: Sequence[float]) -> dict[str, float | int]:
    """Summarise measurements.

    Args:
        values (Sequence[float]): At least one.

    Returns:
        dict: ``median``, ``q1``, ``q3`` (five significant digits) and ``n``.
    """
    q1, median, q3 = (
        float(f'{x:.5g}') for x in np.percentile(values, [25, 50, 75])
    )
    return dict(median=median, q1=q1, q3=q3, n=len(values))


def ratio(
    numerators: Sequence[float], denominators: Sequence[float]
) -> dict[str, float | int]:
    """Summarise the ratio of two contestants, taken round by round."""
    pairs = zip(numerators, denominators, strict=True)
    return quartiles([a / b for a, b in pairs])
