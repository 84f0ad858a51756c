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
from .statistics import PairList, PairStatistics

# Scores held at a time: fits a CPU's cache, and fills a GPU.
CHUNK_ELEMENTS = defaultdict(lambda: 2**23, cpu=2**20)


@dataclass
class KeyBlock:
    """Keys to compare the queries with, and what each is to each query.

    Attributes:
        keys (Tensor): Shape (M, C).
        targets (Callable): Takes a slice of the keys and returns which of
            them are positives, as a bool tensor of shape (N, slice) or a
            :class:`PairList`, and which are neither positive nor negative, a
            bool tensor; either may be None for "none". No key may be both.
    """

    keys: Tensor
    targets: Callable[[slice], tuple[Tensor | PairList | None, Tensor | None]]


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
        self.key_sum, self.num_keys = torch.zeros_like(query[0]), 0
        self.nearest_positive = self.positive_sum = self.own
        self.num_positives = torch.ones_like(self.own)
        self.num_ignored = torch.zeros_like(self.own)
        self.ignored_sum = torch.zeros_like(self.own)

    def add(
        self,
        keys: Tensor,
        positives: Tensor | PairList | None,
        ignored: Tensor | None,
    ) -> None:
        """Add a chunk of keys (B, C) with its targets."""
        scores = self.query @ keys.T
        self.num_keys += len(keys)
        # Gives the sum of all similarities without touching them.
        self.key_sum += keys.sum(dim=0)
        if positives is not None:
            self._add_positives(scores, keys, positives)
        if ignored is not None:
            self.num_ignored += ignored.sum(dim=1)
            self.ignored_sum += scores.masked_fill(~ignored, 0).sum(dim=1)
            scores.masked_fill_(ignored, float('-inf'))
        self.log_sums['negative'].add(scores, keys)

    def _add_positives(
        self, scores: Tensor, keys: Tensor, positives: Tensor | PairList
    ) -> None:
        """Count the positives in, and take them out of the scores."""
        # Positives are few, and picking them out is cheap on a CPU. On a GPU
        # their number is unknown to the host, which would have to wait.
        if isinstance(positives, Tensor) and _is_sparse(positives):
            positives = PairList(*positives.nonzero(as_tuple=True))
        if isinstance(positives, Tensor):
            self._add_matrix(scores, keys, positives)
            scores.masked_fill_(positives, float('-inf'))
        elif len(positives):
            picked = positives.rows, positives.columns
            self._add_pairs(positives, scores[picked], keys)
            scores[picked] = float('-inf')

    def _add_pairs(
        self, pairs: PairList, scores: Tensor, keys: Tensor
    ) -> None:
        rows = pairs.rows
        for name, scale in self.scales.items():
            values = scores * (scale * self.temperature)
            self.log_sums[name].add_pairs(pairs, values, keys)
        if self.wants_mean:
            self.positive_key_sum += pairs.sum_keys(keys, len(self.own))
        ones = torch.ones_like(scores)
        self.num_positives = self.num_positives.index_add(0, rows, ones)
        self.positive_sum = self.positive_sum.index_add(0, rows, scores)
        self.nearest_positive = self.nearest_positive.scatter_reduce(
            0, rows, scores, 'amax'
        )

    def _add_matrix(
        self, scores: Tensor, keys: Tensor, positives: Tensor
    ) -> None:
        others = ~positives
        for name, scale in self.scales.items():
            values = scores * (scale * self.temperature)
            values.masked_fill_(others, float('-inf'))
            self.log_sums[name].add(values, keys)
        if self.wants_mean:
            self.positive_key_sum.addmm_(positives.to(keys.dtype), keys)
        total = scores.masked_fill(others, 0).sum(dim=1)
        self.num_positives = self.num_positives + positives.sum(dim=1)
        self.positive_sum = self.positive_sum + total
        nearest = scores.masked_fill(others, float('-inf')).amax(dim=1)
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
                self.positive_sum * self.temperature * weight,
                self.positive_key_sum * weight.unsqueeze(1),
            )
        return PairStatistics(num_positives=self.num_positives, **fields)

    def monitor(self) -> PairMonitor:
        """Return the similarities for the log."""
        # The own keys are positives, but none of the keys added.
        others = self.positive_sum - self.own + self.ignored_sum
        negative_sum = self.query @ self.key_sum - others
        num_others = self.num_positives - 1 + self.num_ignored
        nearest_negative = self.log_sums['negative'].maximum
        return PairMonitor(
            nearest_positive=self.nearest_positive * self.temperature,
            nearest_negative=nearest_negative * self.temperature,
            num_positives=self.num_positives,
            positive_sum=self.positive_sum * self.temperature,
            negative_sum=negative_sum * self.temperature,
            num_negatives=self.num_keys - num_others,
        )


def _is_sparse(mask: Tensor) -> bool:
    """Whether few entries are set, where the host can tell at no cost."""
    if mask.device.type != 'cpu':
        return False
    return 32 * int(mask.count_nonzero()) < mask.numel()
