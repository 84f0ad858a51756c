"""Pair statistics in one pass over the keys, without an N x K matrix.

For each chunk of keys there is one matrix product for the scores and one for
the gradient. Value and gradient leave together, so the backward pass costs
(N, C) work and nothing of size K is kept. The keys get no gradient, as in
MoCo.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .log_sum import RunningLogSum
from .monitor import PairMonitor
from .statistics import PairList, PairStatistics

# Scores held at a time: fits a CPU's cache, and fills a GPU.
CHUNK_ELEMENTS = defaultdict(lambda: 2**22, cpu=2**20)
# Keys at a time, however few queries: they are read three times.
CHUNK_KEYS = defaultdict(lambda: 2**23, cpu=2**13)
# Pairs of queries and keys of which the positives are listed at once. What a
# list costs besides its entries is paid once for so many.
LISTED_ELEMENTS = 2**24
# From here on a CPU multiplies faster with the scores of a key together.
MANY_QUERIES = 64


class Targets(Protocol):
    """What some keys are to some queries; no key may be two things at once."""

    def pairs(self, part: slice) -> PairList | None:
        """List the positives among a part of the keys.

        Args:
            part (slice): Of the M keys.

        Returns:
            PairList | None: In the order of the keys, which are counted from
            the first of the part. None where listing them does not pay.
        """

    def positives(self, part: slice) -> Tensor | None:
        """Mark the positives, shape (N, part), bool; None for "none"."""

    def ignored(self, part: slice) -> Tensor | None:
        """Mark what is neither positive nor negative, in the same way."""


@dataclass
class KeyBlock:
    """Keys to compare the queries with, and what each is to each query.

    Attributes:
        keys (Tensor): Shape (M, C).
        targets (Targets): Of the N queries and these keys.
    """

    keys: Tensor
    targets: Targets


def streamed_statistics(
    query: Tensor,
    key: Tensor,
    blocks: Sequence[KeyBlock],
    temperature: float,
    positive_temperature: float | None = None,
    statistics: Sequence[str] = ('inverse_positive',),
    chunk_size: int | None = None,
) -> tuple[PairStatistics, PairMonitor]:
    """Compute the statistics of each query over its own key and the blocks.

    Args:
        query (Tensor): Shape (N, C), float. Half precision is computed in
            float32, also under autocast.
        key (Tensor): Each query's own key, always a positive, shape (N, C).
        blocks (Sequence[KeyBlock]): All other keys.
        temperature (float): Divides the similarities of negatives.
        positive_temperature (float, optional): Divides those of positives.
            Defaults to ``temperature``.
        statistics (Sequence[str]): Optional fields to compute.
        chunk_size (int, optional): Keys at a time. Defaults to what
            ``CHUNK_ELEMENTS`` and ``CHUNK_KEYS`` allow.

    Returns:
        tuple[PairStatistics, PairMonitor]: The statistics, differentiable
        with respect to ``query``, and similarities for the log.
    """
    if positive_temperature is None:
        positive_temperature = temperature
    query = query.to(torch.promote_types(query.dtype, torch.float32))
    device = query.device.type
    step = chunk_size or _chunk_size(len(query), device)
    with torch.autocast(device_type=device, enabled=False):
        with torch.no_grad():
            sums = _Accumulator(
                query.detach(),
                key.to(query.dtype),
                statistics,
                temperature,
                positive_temperature,
            )
            for block in blocks:
                span = max(LISTED_ELEMENTS // max(len(query), 1), step)
                for part in _parts(slice(0, len(block.keys)), span):
                    sums.add_block(block, part, step)
        return sums.statistics(query, positive_temperature), sums.monitor()


class _Accumulator:
    """Sums over the keys seen so far; starts with each query's own key.

    Inside, similarities are divided by ``temperature`` from the start: on
    (N, C) queries rather than on (N, M) scores.
    """

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        names: Sequence[str],
        temperature: float,
        positive_temperature: float,
    ) -> None:
        self.query, self.temperature = query / temperature, temperature
        self.buffer = query.new_empty(0)
        self.keys_first = query.is_cpu and len(query) >= MANY_QUERIES
        # Positive scores: d(score) / d(similarity) of each wanted log-sum.
        scales = {
            'positive': 1 / positive_temperature,
            'inverse_positive': -1 / positive_temperature,
        }
        self.scales = {n: x for n, x in scales.items() if n in names}
        self.log_sums = {
            name: RunningLogSum(*query.shape, like=query)
            for name in ('negative', *self.scales)
        }
        self.own = (self.query * key).sum(dim=1)
        for name, scale in self.scales.items():
            self.log_sums[name].start(self.own * (scale * temperature), key)
        self.wants_mean = 'positive_mean' in names
        self.positive_key_sum = key.clone()
        self.score_sum, self.num_keys = torch.zeros_like(self.own), 0
        self.nearest = self.positive_sum = self.own
        self.num_positives = torch.ones_like(self.own)
        self.num_ignored = torch.zeros_like(self.own)
        self.ignored_sum = torch.zeros_like(self.own)

    def add_block(self, block: KeyBlock, span: slice, step: int) -> None:
        """Add a part of a block, ``step`` keys at a time."""
        chunks = _parts(span, step)
        self.num_keys += span.stop - span.start
        pairs = block.targets.pairs(span)
        if pairs is None:
            for chunk in chunks:
                self._add_chunk(block, chunk)
            return
        lists = pairs.split([chunk.start - span.start for chunk in chunks])
        picked = [
            self._add(
                block.keys[chunk].to(self.query.dtype),
                part,
                block.targets.ignored(chunk),
            )
            for chunk, part in zip(chunks, lists, strict=True)
        ]
        pairs, order = pairs.by_row()
        keys = block.keys[span].to(self.query.dtype)
        self._add_pairs(pairs, torch.cat(picked)[order], keys)

    def _add_chunk(self, block: KeyBlock, chunk: slice) -> None:
        """Add a chunk of which nothing is listed."""
        keys = block.keys[chunk].to(self.query.dtype)
        positives = block.targets.positives(chunk)
        # Positives are few, and picking them out is cheap on a CPU. On a GPU
        # their number is unknown to the host, which would have to wait.
        if positives is not None and _is_sparse(positives):
            positives = PairList(*positives.nonzero(as_tuple=True))
        picked = self._add(keys, positives, block.targets.ignored(chunk))
        if picked is not None:
            self._add_pairs(positives, picked, keys)

    def _add(
        self,
        keys: Tensor,
        positives: Tensor | PairList | None,
        ignored: Tensor | None,
    ) -> Tensor | None:
        """Add a chunk of keys (B, C).

        Of listed positives only the scores are taken out, and returned; the
        caller counts them in.
        """
        marked, picked = isinstance(positives, Tensor), None
        masked = marked or ignored is not None
        scores = self._scores(keys, self.keys_first and not masked)
        self.score_sum += scores.sum(dim=1)
        if marked:
            self._add_matrix(scores, keys, positives)
        elif positives is not None:
            picked = _take_out(scores, positives)
        if ignored is not None:
            number, total = _count_and_sum(ignored, scores)
            self.num_ignored += number
            self.ignored_sum += total
            scores.masked_fill_(ignored, float('-inf'))
        if marked:
            self.nearest = torch.maximum(self.nearest, scores.amax(dim=1))
            scores.masked_fill_(positives, float('-inf'))
        self.log_sums['negative'].add(scores, keys)
        return picked

    def _scores(self, keys: Tensor, keys_first: bool) -> Tensor:
        """Return the scores (N, B); those of the chunk before are gone.

        All chunks share their memory: given back and taken again, it is taken
        from the system page by page, which can cost a CPU a quarter of the
        time.

        Args:
            keys (Tensor): Shape (B, C).
            keys_first (bool): Whether the scores of a key lie together. A
                CPU takes a fifth less time for that product, if queries are
                many; but to a mask, of which those of a query lie together,
                they do not fit.
        """
        size = len(self.query) * len(keys)
        if self.buffer.numel() < size:
            self.buffer = keys.new_empty(size)
        scores = self.buffer[:size].view(len(self.query), len(keys))
        if keys_first:
            scores = scores.view(len(keys), len(self.query))
            return torch.mm(keys, self.query.T, out=scores).T
        return torch.mm(self.query, keys.T, out=scores)

    def _add_pairs(
        self, pairs: PairList, scores: Tensor, keys: Tensor
    ) -> None:
        """Count in listed positives, in the order of their queries."""
        if not len(pairs):
            return
        rows = pairs.rows
        for name, scale in self.scales.items():
            values = scores * (scale * self.temperature)
            self.log_sums[name].add_pairs(pairs, values, keys)
        if self.wants_mean:
            self.positive_key_sum += pairs.sum_keys(keys, len(self.own))
        ones = torch.ones_like(scores)
        self.num_positives = self.num_positives.index_add(0, rows, ones)
        self.positive_sum = self.positive_sum.index_add(0, rows, scores)
        self.nearest = self.nearest.scatter_reduce(0, rows, scores, 'amax')

    def _add_matrix(
        self, scores: Tensor, keys: Tensor, positives: Tensor
    ) -> None:
        """Count in marked positives.

        Each pass over the chunk, and each tensor of its size, is what labels
        cost on a GPU: so one copy at a time, and few passes.
        """
        for name, scale in self.scales.items():
            scale *= self.temperature
            left_out = float('-inf') if scale > 0 else float('inf')
            values = torch.where(positives, scores, left_out)
            self.log_sums[name].add(values, keys, scale)
            del values
        if self.wants_mean:
            self.positive_key_sum.addmm_(positives.to(keys.dtype), keys)
        number, total = _count_and_sum(positives, scores)
        self.num_positives = self.num_positives + number
        self.positive_sum = self.positive_sum + total

    def statistics(
        self, query: Tensor, positive_temperature: float
    ) -> PairStatistics:
        """Return the statistics as differentiable functions of ``query``."""
        zero = query - query.detach()

        def attach(value: Tensor, gradient: Tensor) -> Tensor:
            # Adds zero, whose gradient with respect to the query is known.
            return value + (zero * gradient).sum(dim=1)

        scales = {'negative': 1 / self.temperature, **self.scales}
        fields = {
            name: attach(running.value, running.mean_key * scales[name])
            for name, running in self.log_sums.items()
        }
        if self.wants_mean:
            weight = 1 / (self.num_positives * positive_temperature)
            fields['positive_mean'] = attach(
                self.positive_sum * self.temperature * weight,
                self.positive_key_sum * weight.unsqueeze(1),
            )
        return PairStatistics(num_positives=self.num_positives, **fields)

    def monitor(self) -> PairMonitor:
        """Return the similarities for the log."""
        # The own keys are positives, but none of the keys added.
        others = self.positive_sum - self.own + self.ignored_sum
        negative_sum = self.score_sum - others
        num_others = self.num_positives - 1 + self.num_ignored
        nearest_negative = self.log_sums['negative'].maximum
        nearest = torch.maximum(self.nearest, nearest_negative)
        return PairMonitor(
            nearest=nearest * self.temperature,
            nearest_negative=nearest_negative * self.temperature,
            num_positives=self.num_positives,
            positive_sum=self.positive_sum * self.temperature,
            negative_sum=negative_sum * self.temperature,
            num_negatives=self.num_keys - num_others,
        )


def _chunk_size(num_queries: int, device: str) -> int:
    fitting = max(CHUNK_ELEMENTS[device] // max(num_queries, 1), 1)
    return min(fitting, CHUNK_KEYS[device])


def _parts(span: slice, step: int) -> list[slice]:
    """Cut a slice into slices of ``step``, of which the last may be less."""
    return [
        slice(start, min(start + step, span.stop))
        for start in range(span.start, span.stop, step)
    ]


def _take_out(scores: Tensor, pairs: PairList) -> Tensor:
    """Return the scores (E,) of pairs; they are no scores any more."""
    to_row, to_column = scores.stride()
    places = torch.add(pairs.columns * to_column, pairs.rows, alpha=to_row)
    flat = scores.as_strided((scores.numel(),), (1,))
    picked = flat.index_select(0, places)
    flat.index_fill_(0, places, float('-inf'))
    return picked


def _count_and_sum(mask: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Of the marked scores of each row: how many, and their sum."""
    # In the dtype of the scores: as integers the mask would be twice as large.
    number = mask.sum(dim=1, dtype=scores.dtype)
    return number, torch.where(mask, scores, 0).sum(dim=1)


def _is_sparse(mask: Tensor) -> bool:
    """Whether few entries are set, where the host can tell at no cost."""
    if mask.device.type != 'cpu':
        return False
    return 32 * int(mask.count_nonzero()) < mask.numel()
