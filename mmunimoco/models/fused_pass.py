"""The pass over the keys as Triton kernels, in one operator of torch.

It computes what :class:`PairSums` accumulates, reading each key once for 64
queries (16, if they are few or long): the plain loop launches some 200
kernels, which at 32 queries take longer than their work. The keys are split
over the blocks of a GPU, so that few queries fill it too; each block keeps its
running sums in registers. Another kernel merges the blocks. ``torch.compile``
calls the operator as it is, so a head can be compiled around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from .fused_kernels import SCALARS, merge_kernel, pass_kernel
from .labels import KeyBlock
from .pair_statistics import PairMonitor, PairStatistics

_MAX_DIM = 256
# Statistics with a gradient, in this order where they are wanted.
_STATISTICS = ('negative', 'positive', 'inverse_positive', 'positive_mean')


def supports(query: Tensor, blocks: Sequence[KeyBlock]) -> bool:
    """Whether the kernels compute this: one label a sample, float32 or less.

    Args:
        query (Tensor): Shape (N, C).
        blocks (Sequence[KeyBlock]): The keys.
    """
    return (
        query.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and query.shape[1] <= _MAX_DIM
        and len(blocks) > 0
        and all(block.query_labels.labels.dim() == 1 for block in blocks)
        and all(block.never_positive is None for block in blocks)
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
        query (Tensor): Shape (N, C), float. Half precision is computed in
            float32.
        own_key (Tensor): Shape (N, C), float.
        blocks (Sequence[KeyBlock]): All other keys; see :func:`supports`.
            They have the same queries and options, but for ``own_start``.
        temperature (float): Divides the similarities of negatives.
        positive_temperature (float): Divides those of positives.
        statistics (Sequence[str]): Optional fields to compute.

    Returns:
        tuple[PairStatistics, PairMonitor]: As ``streamed_statistics``.
    """
    block = blocks[0]
    queries = block.query_labels
    # What is not compared needs no memory of its own.
    identities = [queries.labels, *(b.key_labels.labels for b in blocks)]
    if block.exclude_own:
        identities = [queries.indices, *(b.key_labels.indices for b in blocks)]
    wanted = [name in (*statistics, 'negative') for name in _STATISTICS]
    starts = [-1 if b.own_start is None else b.own_start for b in blocks]
    values, monitor, _ = pair_sums(
        query.float(),
        own_key.float(),
        [b.keys for b in blocks],
        [queries.labels, *(b.key_labels.labels for b in blocks)],
        identities,
        starts,
        queries.has_labels,
        block.ignore_unlabeled,
        block.exclude_own,
        temperature,
        positive_temperature,
        wanted,
    )
    names = [n for n, kept in zip(_STATISTICS, wanted, strict=True) if kept]
    fields = dict(zip(names, values.unbind(), strict=True))
    monitor = PairMonitor(*monitor.detach().unbind())
    statistics = PairStatistics(num_positives=monitor.num_positives, **fields)
    return statistics, monitor


# Written out: torch before 2.7 reads no annotations such as list[Tensor].
_SCHEMA = (
    '(Tensor query, Tensor own_key, Tensor[] keys, Tensor[] labels, '
    'Tensor[] identities, int[] own_starts, bool has_labels, '
    'bool ignore_unlabeled, bool exclude_own, float temperature, '
    'float positive_temperature, bool[] wanted) -> (Tensor, Tensor, Tensor)'
)


@torch.library.custom_op(
    'mmunimoco::pair_sums', mutates_args=(), schema=_SCHEMA
)
def pair_sums(
    query: Tensor,
    own_key: Tensor,
    keys: list[Tensor],
    labels: list[Tensor],
    identities: list[Tensor],
    own_starts: list[int],
    has_labels: bool,
    ignore_unlabeled: bool,
    exclude_own: bool,
    temperature: float,
    positive_temperature: float,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over the keys of each query, differentiably.

    Args:
        query (Tensor): Shape (N, C), float32.
        own_key (Tensor): Shape (N, C), float32.
        keys (list[Tensor]): Blocks of keys, (M, C) each, of any float.
        labels (list[Tensor]): Of the queries, (N,), and of each block, (M,);
            int64, -1 for unlabeled.
        identities (list[Tensor]): Of their images; read if ``exclude_own``.
        own_starts (list[int]): ``KeyBlock.own_start`` of each block, or -1.
        has_labels (bool): See ``SampleLabels``.
        ignore_unlabeled (bool): See ``KeyBlock``.
        exclude_own (bool): See ``KeyBlock``.
        temperature (float): Divides the similarities of negatives.
        positive_temperature (float): Divides those of positives.
        wanted (list[bool]): Which of the V statistics to compute.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Statistics, (V, N), the only ones with a
        gradient; the fields of ``PairMonitor``, (6, N); gradients of the
        statistics with respect to the queries, (V, N, C).
    """
    query, own_key = query.contiguous(), own_key.contiguous()
    count, dim = query.shape
    tile = _Tile.for_problem(query, max(map(len, keys)))
    splits = [tile.splits(len(block)) for block in keys]
    new = query.new_empty
    scalars = new((sum(splits), SCALARS.value, count))
    vectors = new((sum(splits), sum(wanted), count, dim))
    values, monitor = new((sum(wanted), count)), new((6, count))
    means = new((sum(wanted), count, dim))
    factor = temperature / positive_temperature
    shape = dict(
        zip(('POSITIVE', 'INVERSE', 'MEAN'), _slots(wanted), strict=True),
        VECTORS=sum(wanted),
        BLOCK_C=_power_of_2(dim),
    )
    first = 0
    for index, (block, parts) in enumerate(zip(keys, splits, strict=True)):
        in_batch = own_starts[index] >= 0
        pass_kernel[(triton.cdiv(count, tile.queries), parts)](
            query,
            block.contiguous(),
            labels[0],
            labels[1 + index],
            identities[0],
            identities[1 + index],
            scalars[first:],
            vectors[first:],
            count,
            len(block),
            dim,
            triton.cdiv(triton.cdiv(len(block), tile.keys), parts),
            max(own_starts[index], 0),
            1 / temperature,
            factor,
            LABELED=has_labels or in_batch,
            IGNORE_UNLABELED=ignore_unlabeled and has_labels,
            EXCLUDE_OWN=exclude_own,
            IN_BATCH=in_batch,
            BLOCK_N=tile.queries,
            BLOCK_K=tile.keys,
            SPLIT=tile.split,
            num_warps=tile.warps,
            num_stages=2,
            **shape,
        )
        first += parts
    merge_kernel[(count,)](
        query,
        own_key,
        scalars,
        vectors,
        values,
        monitor,
        means,
        count,
        dim,
        sum(splits),
        sum(map(len, keys)),
        temperature,
        factor,
        BLOCK_S=32,
        **shape,
    )
    return values, monitor, means


@pair_sums.register_fake
def _(
    query: Tensor, own_key: Tensor, keys: list[Tensor], *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    new, number = query.new_empty, sum(options[-1])
    count, dim = query.shape
    return new((number, count)), new((6, count)), new((number, count, dim))


def _keep_means(ctx: Any, inputs: tuple, output: tuple) -> None:
    *_, means = output
    ctx.save_for_backward(means)
    ctx.number = len(inputs[2])


def _differentiate(ctx: Any, gradient: Tensor, *_: Any) -> tuple:
    (means,) = ctx.saved_tensors
    lists = [None] * ctx.number, *([None] * (ctx.number + 1),) * 2
    return (gradient.unsqueeze(2) * means).sum(0), None, *lists, *[None] * 7


pair_sums.register_autograd(_differentiate, setup_context=_keep_means)


def _slots(wanted: list[bool]) -> list[int]:
    """Places of the optional statistics among those wanted, -1 for none."""
    return [sum(wanted[:i]) if wanted[i] else -1 for i in (1, 2, 3)]


def _power_of_2(value: int) -> int:
    return max(16, triton.next_power_of_2(value))


@dataclass(frozen=True)
class _Tile:
    """How the work is divided.

    Attributes:
        queries (int): Queries of a program.
        keys (int): Keys of a step.
        split (bool): Whether float32 is multiplied as halves in bfloat16.
        programs (int): Programs that share the keys, for each ``queries``.
        warps (int): Of a program.
    """

    queries: int
    keys: int
    split: bool
    programs: int
    warps: int = 4

    @classmethod
    def for_problem(cls, query: Tensor, num_keys: int) -> '_Tile':
        """Choose by device and shape."""
        count, dim = query.shape
        if query.is_cpu:  # Triton's interpreter, slow at many small tiles
            keys = 32 if num_keys < 4096 else 1024
            return cls(min(_power_of_2(count), 32), keys, False, 4)
        device = torch.cuda.get_device_properties(query.device)
        # Of NVIDIA's, those from Ampere on multiply bfloat16.
        split = bool(torch.version.hip) or device.major >= 8
        # The fastest on an H200. 64 queries fill its matrix unit.
        queries, keys = (64, 32) if count > 32 else (16, 64)
        if dim > 128 or not split:  # larger tiles spill registers
            queries, keys = 16, 32
        # Two programs a multiprocessor.
        programs = 2 * device.multi_processor_count
        programs //= triton.cdiv(count, queries)
        return cls(queries, keys, split, max(programs, 1))

    def splits(self, num_keys: int) -> int:
        """Programs that share the keys."""
        return min(triton.cdiv(num_keys, self.keys), self.programs)
