"""Pair statistics in one pass over the keys, without an N x K matrix.

For each chunk of keys there is one matrix product for the scores and one for
the gradient. Value and gradient leave together, so the backward pass costs
(N, C) work and nothing of size K is kept. The keys get no gradient, as in
MoCo.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .log_sum import RunningLogSum
from .monitor import PairMonitor
from .statistics import PairStatistics

# Scores held at a time: fits a CPU's cache, and fills a GPU.
CHUNK_ELEMENTS = defaultdict(lambda: 2**23, cpu=2**20)


@dataclass
class KeyBlock:
    """Keys to compare the queries with, and what each is to each query.

    Attributes:
        keys (Tensor): Shape (M, C).
        targets (Callable): Takes a slice of the keys and returns two bool
            tensors of shape (N, slice), or None for "none": which keys are
            positives, and which are neither positive nor negative. No key may
            be both.
    """

    keys: Tensor
    targets: Callable[[slice], tuple[Tensor | None, Tensor | None]]


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
            ``CHUNK_ELEMENTS`` allows.

    Returns:
        tuple[PairStatistics, PairMonitor]: The statistics, differentiable
        with respect to ``query``, and similarities for the log.
    """
    if positive_temperature is None:
        positive_temperature = temperature
    query = query.to(torch.promote_types(query.dtype, torch.float32))
    device = query.device.type
    step = chunk_size or max(CHUNK_ELEMENTS[device] // max(len(query), 1), 1)
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
                for start in range(0, len(block.keys), step):
                    chunk = slice(start, min(start + step, len(block.keys)))
                    keys = block.keys[chunk].to(query.dtype)
                    sums.add(keys, *block.targets(chunk))
        return sums.statistics(query, positive_temperature), sums.monitor()


class _Accumulator:
    """Sums over the keys seen so far; starts with each query's own key."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        names: Sequence[str],
        temperature: float,
        positive_temperature: float,
    ) -> None:
        self.query, self.temperature = query, temperature
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
        zeros = query.new_zeros(len(query))
        self.wants_mean = 'positive_mean' in names
        self.positive_key_sum = torch.zeros_like(query)
        self.num_positives, self.num_negatives = zeros, zeros.clone()
        self.positive_sum, self.negative_sum = zeros.clone(), zeros.clone()
        self.nearest_positive = torch.full_like(zeros, float('-inf'))
        rows = torch.arange(len(query), device=query.device)
        self._add_entries(rows, (query * key).sum(dim=1), key)

    def add(
        self, keys: Tensor, positives: Tensor | None, ignored: Tensor | None
    ) -> None:
        """Add a chunk of keys (B, C) with its targets, each (N, B)."""
        similarity = self.query @ keys.T
        count, total = len(keys), similarity.sum(dim=1)
        if positives is not None:
            before = self.num_positives.clone(), self.positive_sum.clone()
            self._add_positives(similarity, keys, positives)
            count = count - (self.num_positives - before[0])
            total = total - (self.positive_sum - before[1])
            similarity.masked_fill_(positives, float('-inf'))
        if ignored is not None:
            count = count - ignored.sum(dim=1)
            total = total - similarity.masked_fill(~ignored, 0).sum(dim=1)
            similarity.masked_fill_(ignored, float('-inf'))
        self.num_negatives += count
        self.negative_sum += total
        # In place: from here on the similarities are scores.
        self.log_sums['negative'].add(similarity.div_(self.temperature), keys)

    def _add_positives(
        self, similarity: Tensor, keys: Tensor, positives: Tensor
    ) -> None:
        # Positives are few, and picking them out is cheap on a CPU. On a GPU
        # their number is unknown to the host, which would have to wait.
        if keys.device.type == 'cpu' and _is_sparse(positives):
            rows, columns = positives.nonzero(as_tuple=True)
            self._add_entries(rows, similarity[rows, columns], keys[columns])
        else:
            self._add_matrix(similarity, keys, positives)

    def _add_entries(self, rows: Tensor, values: Tensor, keys: Tensor) -> None:
        for name, scale in self.scales.items():
            self.log_sums[name].add_entries(rows, values * scale, keys)
        if self.wants_mean:
            self.positive_key_sum.index_add_(0, rows, keys)
        self.num_positives.index_add_(0, rows, torch.ones_like(values))
        self.positive_sum.index_add_(0, rows, values)
        self.nearest_positive.scatter_reduce_(0, rows, values, 'amax')

    def _add_matrix(
        self, similarity: Tensor, keys: Tensor, positives: Tensor
    ) -> None:
        for name, scale in self.scales.items():
            scores = similarity * scale
            scores.masked_fill_(~positives, float('-inf'))
            self.log_sums[name].add(scores, keys)
        if self.wants_mean:
            self.positive_key_sum.addmm_(positives.to(keys.dtype), keys)
        self.num_positives += positives.sum(dim=1)
        self.positive_sum += similarity.masked_fill(~positives, 0).sum(dim=1)
        nearest = similarity.masked_fill(~positives, float('-inf')).amax(dim=1)
        self.nearest_positive = torch.maximum(self.nearest_positive, nearest)

    def statistics(
        self, query: Tensor, positive_temperature: float
    ) -> PairStatistics:
        """Return the statistics as differentiable functions of ``query``."""

        def attach(value: Tensor, gradient: Tensor) -> Tensor:
            # Adds zero, whose gradient with respect to the query is known.
            return value + ((query - query.detach()) * gradient).sum(dim=1)

        scales = {'negative': 1 / self.temperature, **self.scales}
        fields = {
            name: attach(running.value, running.mean_key * scales[name])
            for name, running in self.log_sums.items()
        }
        if self.wants_mean:
            weight = 1 / (self.num_positives * positive_temperature)
            fields['positive_mean'] = attach(
                self.positive_sum * weight,
                self.positive_key_sum * weight.unsqueeze(1),
            )
        return PairStatistics(num_positives=self.num_positives, **fields)

    def monitor(self) -> PairMonitor:
        """Return the similarities for the log."""
        return PairMonitor(
            nearest_positive=self.nearest_positive,
            nearest_negative=self.log_sums['negative'].maximum
            * self.temperature,
            num_positives=self.num_positives,
            positive_sum=self.positive_sum,
            negative_sum=self.negative_sum,
            num_negatives=self.num_negatives,
        )


def _is_sparse(mask: Tensor) -> bool:
    return 32 * int(mask.count_nonzero()) < mask.numel()
