"""Collate views in shared memory that is reused from batch to batch.

torch's ``default_collate`` allocates new shared memory for every batch, and
the kernel clears it page by page: with ``LoadTwoCrops`` that takes about 8 %
of the time of a worker. Here a worker uses its memory again once the batch
in it has been released.
"""

import math
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from torch import Tensor
from torch.utils.data import get_worker_info

_HEADER = 64  # bytes, of which the first says whether the block is in use
_BLOCKS = []  # of this worker: (bytes,) uint8 tensors in shared memory


@FUNCTIONS.register_module()
def collate_views(batch: Sequence[dict]) -> Any:
    """Stack the views of samples, like ``default_collate``.

    Args:
        batch (Sequence[dict]): Samples from ``PackInputs``; ``inputs`` is a
            list of views.

    Returns:
        dict: ``inputs``, a list with a tensor (N, ...) for each view; the
        rest as from mmengine's ``default_collate``. A worker returns an
        object that becomes this dict when unpickled. The memory is reused
        only when no tensor refers to it any more, so batches may be kept.
    """
    views = [sample['inputs'] for sample in batch]
    if get_worker_info() is None or not _have_one_shape(views):
        return default_collate(batch)
    rest = [{k: v for k, v in s.items() if k != 'inputs'} for s in batch]
    first = views[0][0]
    shape = (len(views[0]), len(views), *first.shape)
    block = _free_block(math.prod(shape) * first.element_size())
    stacked = _view(_content(block, shape, first.dtype), shape, first.dtype)
    for index, images in enumerate(zip(*views, strict=True)):
        torch.stack(images, out=stacked[index])
    return _SharedBatch(block, shape, first.dtype, default_collate(rest))


class _SharedBatch:
    """A batch in a block of shared memory; unpickles to the batch itself."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple:
        return _receive, self.parts


def _have_one_shape(views: list) -> bool:
    """Whether all are lists of equally many CPU tensors of one kind."""
    if not all(isinstance(v, list) and len(v) == len(views[0]) for v in views):
        return False
    images = [image for sample in views for image in sample]
    if not images or not all(isinstance(i, Tensor) for i in images):
        return False
    kinds = {(i.shape, i.dtype, i.device.type) for i in images}
    return len(kinds) == 1 and images[0].device.type == 'cpu'


def _free_block(count: int) -> Tensor:
    """Return shared memory for ``count`` bytes, marked as in use."""
    # Free blocks that are too small are dropped.
    _BLOCKS[:] = [b for b in _BLOCKS if b[0] or len(b) >= _HEADER + count]
    block = next((b for b in _BLOCKS if not b[0]), None)
    if block is None:
        block = torch.empty(_HEADER + count, dtype=torch.uint8)
        _BLOCKS.append(block.share_memory_())
    block[0] = 1
    return block


def _receive(
    block: Tensor, shape: tuple, dtype: torch.dtype, rest: dict
) -> dict:
    """Rebuild the batch in the process that receives it."""
    content = _content(block, shape, dtype)
    # Lives as long as any tensor, or slice of one, that uses its memory.
    finalizer = weakref.finalize(content, _release, block, os.getpid())
    finalizer.atexit = False
    return dict(inputs=list(_view(content, shape, dtype)), **rest)


def _content(block: Tensor, shape: tuple, dtype: torch.dtype) -> np.ndarray:
    count = math.prod(shape) * dtype.itemsize
    return block.numpy()[_HEADER : _HEADER + count]


def _view(content: np.ndarray, shape: tuple, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(content).view(dtype).view(shape)


def _release(block: Tensor, owner: int) -> None:
    # A process forked from the owner holds copies of the tensors.
    if os.getpid() == owner:
        block[0] = 0
