"""Floating point operations: what a step has, and what the device can do."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .timing import spread, stopwatch

# Rows and columns of the matrices whose product shows the device's rate.
SIZES = dict(cpu=1024, cuda=8192)
METHOD = (
    'FLOPs of one step of ours by torch.utils.flop_counter (a multiplication '
    'and an addition are two; forward, backward, key forward, head), the '
    'same number for every contestant, divided by its time and by the '
    'measured rate of a square matrix product in the same precision'
)


def count_flops(function: Callable[[], Any]) -> int:
    """Count the floating point operations of a call."""
    # torch knows addmm, but not its form in place, which the head uses.
    extra = {torch.ops.aten.addmm_: _addmm_flops}
    with FlopCounterMode(display=False, custom_mapping=extra) as counter:
        function()
    return counter.get_total_flops()


def _addmm_flops(
    total: Any, a: Any, b: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Of shapes, as torch's own formulas."""
    return 2 * a[0] * a[1] * b[1]


def matmul_rate(device: str, dtype: torch.dtype, repeats: int) -> dict:
    """Measure how many operations a second a matrix product reaches.

    float32 is allowed the TF32 that cuDNN's convolutions take by default.

    Args:
        device (str): 'cpu' or 'cuda'.
        dtype (torch.dtype): Of the matrices.
        repeats (int): Products that are timed.

    Returns:
        dict: Median and quartiles, in operations a second.
    """
    n = SIZES[device]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        seconds = [stopwatch(lambda: a @ b, device) for _ in range(2)]
        seconds = [stopwatch(lambda: a @ b, device) for _ in range(repeats)]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return spread([2 * n**3 / elapsed for elapsed in seconds])
