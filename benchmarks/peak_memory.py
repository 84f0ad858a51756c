"""Peak of the memory that a call allocates on top of what exists."""

import json
import os
import warnings
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

METHODS = dict(
    cpu="running sum of all allocations and frees of torch's CPU allocator "
    'during the call, temporaries inside operators included, as recorded by '
    'torch.profiler; buffers that a BLAS allocates itself are not seen',
    cuda='torch.cuda.max_memory_allocated during the call less '
    'torch.cuda.memory_allocated before it',
)


def peak_extra_bytes(function: Callable[[], Any], device: str) -> int:
    """Measure the peak of memory during a call.

    Args:
        function (Callable): What to call; its result is dropped at once.
        device (str): 'cpu' or 'cuda'.

    Returns:
        int: Bytes above those allocated before the call.
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
    # Kineto would report the missing GPU as an error.
    os.environ.setdefault('KINETO_LOG_LEVEL', '5')
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
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
    return max(accumulate((size for *_, size in changes), initial=0))
