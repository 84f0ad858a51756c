"""The pass over the keys as one Triton kernel, and one that merges its parts.

It computes what :class:`PairSums` accumulates, reading each key once: the
plain loop launches some 200 kernels, which at 32 queries take longer than
their work. The keys are split over the blocks of a GPU, so that few queries
fill it too; each block keeps its running sums in registers.
"""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from .fused_kernels import SCALARS, merge_kernel, pass_kernel
from .labels import KeyBlock
from .pair_statistics import PairMonitor, PairStatistics, attach_gradient

# Rows of the merged results.
_RESULTS = 10
_MAX_DIM = 256


def supports(query: Tensor, blocks: Sequence[KeyBlock]) -> bool:
    """Whether the kernel computes this: one label a sample, float32.

    Args:
        query (Tensor): Shape (N, C).
        blocks (Sequence[KeyBlock]): The keys.
    """
    return (
        query.dtype == torch.float32
        and query.shape[1] <= _MAX_DIM
        and len(blocks) > 0
        and all(block.query_labels.labels.dim() == 1 for block in blocks)
    )


def fused_statistics(
    query: Tensor,
    own_key: Tensor,
    blocks: Sequence[KeyBlock],
    temperature: float,
    positive_temperature: float,
    statistics: Sequence[str],
) -> tuple[PairStatistics, PairMonitor]:
    """Compute what ``streamed_statistics`` does; see there.

    Args:
        query (Tensor): Shape (N, C), float32, contiguous or not.
        own_key (Tensor): Shape (N, C), float.
        blocks (Sequence[KeyBlock]): All other keys; see :func:`supports`.
        temperature (float): Divides the similarities of negatives.
        positive_temperature (float): Divides those of positives.
        statistics (Sequence[str]): Optional fields to compute.

    Returns:
        tuple[PairStatistics, PairMonitor]: As ``streamed_statistics``.
    """
    with torch.no_grad():
        results, means = _sums(
            query.detach().contiguous(),
            own_key.contiguous(),
            blocks,
            temperature,
            positive_temperature,
            statistics,
        )
    names = _vector_names(statistics)
    values = dict(
        negative=results[0],
        positive=results[1],
        inverse_positive=results[2],
        positive_mean=results[3],
    )
    fields = {
        name: attach_gradient(query, values[name], means[i])
        for i, name in enumerate(names)
    }
    counts = dict(num_positives=results[4], num_negatives=results[5])
    monitor = PairMonitor(
        nearest=results[6],
        nearest_negative=results[7],
        positive_sum=results[8],
        negative_sum=results[9],
        **counts,
    )
    return PairStatistics(num_positives=results[4], **fields), monitor


def _vector_names(statistics: Sequence[str]) -> list[str]:
    """Statistics with a gradient, in the order of the kernels' vectors."""
    optional = ('positive', 'inverse_positive', 'positive_mean')
    return ['negative', *(name for name in optional if name in statistics)]


def _sums(
    query: Tensor,
    own_key: Tensor,
    blocks: Sequence[KeyBlock],
    temperature: float,
    positive_temperature: float,
    statistics: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """Return results (_RESULTS, N), and gradients (V, N, C) of statistics."""
    count, dim = query.shape
    names = _vector_names(statistics)
    tile = _Tile.for_problem(query, max(len(block.keys) for block in blocks))
    splits = [tile.splits(len(block.keys)) for block in blocks]
    total = sum(splits)
    new = query.new_empty
    scalars = new((total, SCALARS.value, count))
    vectors = new((total, len(names), count, dim))
    results, means = new((_RESULTS, count)), new((len(names), count, dim))
    # Vectors of statistics that are not wanted are not computed.
    slots = dict(
        POSITIVE=_slot(names, 'positive'),
        INVERSE=_slot(names, 'inverse_positive'),
        MEAN=_slot(names, 'positive_mean'),
    )
    factor = temperature / positive_temperature
    shape = dict(BLOCK_C=_power_of_2(dim), VECTORS=len(names), **slots)
    first = 0
    for block, parts in zip(blocks, splits, strict=True):
        labels, ids = block.query_labels, block.query_labels.indices
        key_ids = block.key_labels.indices
        keys = block.keys.contiguous()
        pass_kernel[(triton.cdiv(count, tile.queries), parts)](
            query,
            keys,
            labels.labels,
            block.key_labels.labels,
            labels.labels if ids is None else ids,
            block.key_labels.labels if key_ids is None else key_ids,
            scalars[first:],
            vectors[first:],
            count,
            len(keys),
            dim,
            triton.cdiv(triton.cdiv(len(keys), tile.keys), parts),
            block.own_start or 0,
            1 / temperature,
            factor,
            LABELED=labels.has_labels or block.own_start is not None,
            IGNORE_UNLABELED=block.ignore_unlabeled and labels.has_labels,
            EXCLUDE_OWN=block.exclude_own,
            IN_BATCH=block.own_start is not None,
            BLOCK_N=tile.queries,
            BLOCK_K=tile.keys,
            PRECISION=tile.precision,
            num_warps=8,
            num_stages=2,
            **shape,
        )
        first += parts
    merge_kernel[(count,)](
        query,
        own_key,
        scalars,
        vectors,
        results,
        means,
        count,
        dim,
        total,
        sum(len(block.keys) for block in blocks),
        temperature,
        factor,
        BLOCK_S=32,
        **shape,
    )
    return results, means


def _slot(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1


def _power_of_2(value: int) -> int:
    return max(16, triton.next_power_of_2(value))


class _Tile:
    """Queries and keys that a program handles at a time.

    Attributes:
        queries (int): Queries a program.
        keys (int): Keys a step.
        precision (str): How ``tl.dot`` multiplies float32.
    """

    def __init__(
        self, queries: int, keys: int, precision: str, programs: int
    ) -> None:
        self.queries, self.keys = queries, keys
        self.precision, self._programs = precision, programs

    @classmethod
    def for_problem(cls, query: Tensor, num_keys: int) -> '_Tile':
        """Choose by device and shape."""
        count, dim = query.shape
        # Larger tiles spill registers when compiled for an H100.
        queries = min(_power_of_2(count), 32 if dim <= 128 else 16)
        if query.is_cpu:  # Triton's interpreter, slow at many small tiles
            return cls(queries, 32 if num_keys < 4096 else 1024, 'ieee', 4)
        device = torch.cuda.get_device_properties(query.device)
        allowed = torch.backends.cuda.matmul.allow_tf32
        precision = 'tf32' if allowed else 'tf32x3'
        if torch.version.hip or device.major < 8:
            precision = 'ieee'  # no tf32 there
        # Two programs a multiprocessor.
        programs = 2 * device.multi_processor_count
        programs //= triton.cdiv(count, queries)
        return cls(queries, 32, precision, max(programs, 1))

    def splits(self, num_keys: int) -> int:
        """Programs that share the keys."""
        return min(triton.cdiv(num_keys, self.keys), self._programs)
