"""Whether two checkpoints, or two runs, are the same bit by bit."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch

# What is of the clock, of the folder, or of the commit (mmengine writes it
# behind its version).
NOT_COMPARED = (
    *('time', 'eta', 'memory', 'cfg', 'experiment', 'last_ckpt', 'best_ckpt'),
    *('extra_ckpts', 'timestamp', 'mmengine_version'),
)


def differences(
    a: Any,
    b: Any,
    path: str = '',
    not_compared: Collection[str] = NOT_COMPARED,
) -> Iterator[str]:
    """Find where two checkpoints are not bit by bit the same.

    Args:
        a (Any): A checkpoint, or a part of one.
        b (Any): The other one.
        path (str): Where in the checkpoint the parts are. Defaults to ''.
        not_compared (Collection[str]): What a key has in its name that is
            passed over. Defaults to ``NOT_COMPARED``.

    Yields:
        str: The place, and what is there.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            yield f'{path}: keys {set(a) ^ set(b)}'
        for key in a.keys() & b.keys():
            name = str(key).replace('runtime_info', '')
            if not any(word in name for word in not_compared):
                yield from differences(
                    a[key], b[key], f'{path}/{key}', not_compared
                )
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            yield f'{path}: lengths'
        for index, pair in enumerate(zip(a, b, strict=False)):
            yield from differences(*pair, f'{path}/{index}', not_compared)
    elif hasattr(a, '_log_history') and hasattr(b, '_log_history'):
        histories = a._log_history, b._log_history
        if not np.array_equal(*histories, equal_nan=True):
            yield path
    elif isinstance(a, (torch.Tensor, np.ndarray)) and isinstance(b, type(a)):
        if a.dtype != b.dtype or not np.array_equal(a, b):
            yield path
    elif type(a) is not type(b) or a != b:
        yield f'{path}: {str(a)[:40]} and {str(b)[:40]}'


def first_difference(
    undisturbed: Sequence[str], first: int, losses: Sequence[str]
) -> int | None:
    """Find the first step whose loss is another one than it was undisturbed.

    Args:
        undisturbed (Sequence[str]): Losses of all steps.
        first (int): Steps that were done before the others begin.
        losses (Sequence[str]): Losses of the steps that follow.

    Returns:
        int | None: The step, counted from 1; None if there is none.
    """
    if first + len(losses) > len(undisturbed):
        return len(undisturbed) + 1
    for step, loss in enumerate(losses, first + 1):
        if loss != undisturbed[step - 1]:
            return step
    return None
