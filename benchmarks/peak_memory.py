"""Peak of the memory that a call takes on top of what is there."""

import json
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# How it was measured, for the report.
METHODS = dict(
    cpu="running sum of all allocations and frees of torch's CPU allocator "
    'during the call, temporaries inside operators included, as recorded by '
    'torch.profiler; what a BLAS packs for itself is not seen',
    cuda='torch.cuda.max_memory_allocated during the call less '
    'torch.cuda.memory_allocated before it',
)


def peak_extra_bytes(function: Callable[[], Any], device: str) -> int:
    """Measure the peak of memory during a call.

    Args:
        function (Callable): What to call. What it returns is dropped at once.
        device (str): 'cpu' or 'cuda'.

    Returns:
        int: Bytes above those allocated before.
    """
    if device == 'cuda':
        return _peak_cuda(function)
    return _peak_cpu(function)


def _peak_cuda(function: Callable[[], Any]) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_cpu(function: Callable[[], Any]) -> int:
    # That there is no GPU is no error here.
    os.environ.setdefault('KINETO_LOG_LEVEL', '5')
    # Freeing what was there before counts for nothing.
    with (
        warnings.catch_warnings(),
        TemporaryDirectory() as folder,
    ):
        # Of the cycles of a schedule, where there is none.
        warnings.filterwarnings('ignore', '.*Profiler clears events')
        with profile(
            activities=[ProfilerActivity.CPU], profile_memory=True
        ) as profiler:
            function()
        path = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    changes = sorted(
        (event['ts'], event['args'].get('Ev Idx', 0), event['args']['Bytes'])
        for event in events
        if event.get('name') == '[memory]'
    )
    if not changes:
        raise RuntimeError('torch.profiler recorded no allocation')
    return running_peak(change for *_, change in changes)


def running_peak(changes: Iterable[int]) -> int:
    """Largest value of a running sum that starts at 0."""
    total = peak = 0
    for change in changes:
        total += change
        peak = max(peak, total)
    return peak
