"""Batches of views on their way from the worker that made them.

torch's ``default_collate`` takes new shared memory for every batch, and the
kernel clears it page by page: on a CPU core that decodes and crops images,
that is a seventh of all time. It also gives each label a file descriptor of
its own. Here a worker uses its memory again once the batch in it is gone.
"""

import io
import math
import os
import pickle
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from torch import Tensor
from torch.utils.data import get_worker_info

_HEADER = 64  # bytes; the first tells whether the memory is in use
_POOL = []  # of this worker: (bytes,) uint8 tensors in shared memory


@FUNCTIONS.register_module()
def collate_views(batch: Sequence[dict]) -> Any:
    """Stack the views of samples as ``default_collate`` does, at less cost.

    Args:
        batch (Sequence[dict]): Samples as ``PackInputs`` gives them, with
            ``inputs``, a list of views.

    Returns:
        dict: ``inputs``, a list of tensors (N, ...), one a view, and the rest
        as from mmengine's ``default_collate``. In a worker something else,
        which becomes that when it is unpickled. The memory is used again
        when no tensor refers to it any more, so a batch may be kept.
    """
    views = [sample['inputs'] for sample in batch]
    if get_worker_info() is None or not _alike(views):
        return default_collate(batch)
    rest = [{k: v for k, v in s.items() if k != 'inputs'} for s in batch]
    first = views[0][0]
    shape = (len(views[0]), len(views), *first.shape)
    memory = _take(math.prod(shape) * first.element_size())
    stacked = _view(_content(memory, shape, first.dtype), shape, first.dtype)
    for place, images in enumerate(zip(*views, strict=True)):
        torch.stack(images, out=stacked[place])
    return _Lent(memory, shape, first.dtype, _dump(default_collate(rest)))


class _Lent:
    """A batch in shared memory; unpickled, it is the batch."""

    def __init__(self, *parts) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple:
        return _receive, self.parts


def _alike(views: list) -> bool:
    """Whether these are lists of as many tensors of one kind and size."""
    if not all(isinstance(v, list) and len(v) == len(views[0]) for v in views):
        return False
    images = [image for sample in views for image in sample]
    if not images or not all(isinstance(i, Tensor) for i in images):
        return False
    kinds = {(i.shape, i.dtype, i.device.type) for i in images}
    return len(kinds) == 1 and images[0].device.type == 'cpu'


def _take(count: int) -> Tensor:
    """Shared memory for ``count`` bytes, marked as in use."""
    _POOL[:] = [m for m in _POOL if m[0] or len(m) >= _HEADER + count]
    free = [memory for memory in _POOL if not memory[0]]
    if not free:
        free = [torch.empty(_HEADER + count, dtype=torch.uint8)]
        _POOL.append(free[0].share_memory_())
    free[0][0] = 1
    return free[0]


def _receive(
    memory: Tensor, shape: tuple, dtype: torch.dtype, rest: bytes
) -> dict:
    """In the process that gets the batch: tensors on the shared memory."""
    content = _content(memory, shape, dtype)
    # Alive as long as a tensor on it is, whatever slice of it.
    finalizer = weakref.finalize(content, _give_back, memory, os.getpid())
    finalizer.atexit = False
    views = list(_view(content, shape, dtype))
    return dict(inputs=views, **pickle.loads(rest))


def _content(memory: Tensor, shape: tuple, dtype: torch.dtype) -> np.ndarray:
    count = math.prod(shape) * dtype.itemsize
    return memory.numpy()[_HEADER : _HEADER + count]


def _view(content: np.ndarray, shape: tuple, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(content).view(dtype).view(shape)


def _give_back(memory: Tensor, owner: int) -> None:
    # Not by a copy of the tensors in a process that was forked since.
    if os.getpid() == owner:
        memory[0] = 0


class _Pickler(pickle.Pickler):
    """Tensors by value: a label is not worth shared memory of its own."""

    def reducer_override(self, value: Any) -> Any:
        """As numpy arrays, where there is such a dtype."""
        if type(value) is Tensor and value.dtype is not torch.bfloat16:
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _dump(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()
