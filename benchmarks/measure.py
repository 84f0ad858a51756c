"""Time of calls, their spread, and ratios between contestants."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

METHOD = (
    'wall clock; contestants take turns, in a rotated order each round; '
    'ratios are taken within a round; median and quartiles over the rounds'
)


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


def count_kernels(function: Callable[[], Any]) -> int:
    """Return how many kernels, copies included, a call runs on the GPU."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        function()
        torch.cuda.synchronize()
    return sum(
        event.count
        for event in found.key_averages()
        if event.device_type == DeviceType.CUDA
    )


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
