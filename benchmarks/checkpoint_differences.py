"""Compare two checkpoints bit by bit."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

# Keys that depend on the clock, on the folder, or on the commit (mmengine
# appends it to its version). A key is ignored if it contains one of these.
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
    """Yield every place where two checkpoints are not bit-identical.

    Args:
        a (Any): A checkpoint, or a part of one.
        b (Any): The other one.
        path (str): Path of the parts within the checkpoint. Defaults to ''.
        not_compared (Collection[str]): Keys that contain one of these words
            are ignored. Defaults to ``NOT_COMPARED``.

    Yields:
        str: The path, and for simple values both of them.
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
            yield f'{path}: lengths {len(a)} and {len(b)}'
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
