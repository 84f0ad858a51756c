r"""Sums over the positives and negatives of each query.

Every loss of this package is a function of a few numbers per query, each a
sum over its positives P or negatives N. :func:`dense_statistics` computes
them from the matrix of logits; it is short and serves as the reference.
:func:`streamed_statistics` passes once over the keys in chunks: for each
chunk one matrix product gives the scores, and one more per sum gives the
gradient with respect to the query, so no matrix of size N x K is kept and the
backward pass costs O(NC). Keys get no gradient, as in MoCo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .labels import KeyBlock

# Scores computed at a time: about a CPU's cache; on a GPU, few launches.
CHUNK_SCORES = {'cpu': 2**20}
CHUNK_SCORES_DEFAULT = 2**22
# Most keys read at a time on a CPU, where they should stay in its cache.
CHUNK_KEYS_CPU = 2**13
# On a CPU positives are listed if fewer than one pair in so many is one.
SPARSE = 32


@dataclass
class PairStatistics:
    r"""Sums over the positives P and negatives N of each query.

    With logits :math:`s` (similarity divided by the temperature). All fields
    have shape (N,); a log-sum over nothing is ``-inf``. Fields that a loss
    does not name in ``ContrastiveLoss.statistics`` may be None.

    Attributes:
        negative (Tensor): :math:`\log \sum_{n \in N} e^{s_n}`.
        num_positives (Tensor): Size of P, in the dtype of the logits.
        positive (Tensor, optional): :math:`\log \sum_{p \in P} e^{s_p}`.
        inverse_positive (Tensor, optional):
            :math:`\log \sum_{p \in P} e^{-s_p}`.
        positive_mean (Tensor, optional): Mean of :math:`s_p` over P.
        own (Tensor, optional): :math:`s_0` of the own key. With the streamed
            loop the head computes it.
    """

    negative: Tensor
    num_positives: Tensor
    positive: Tensor | None = None
    inverse_positive: Tensor | None = None
    positive_mean: Tensor | None = None
    own: Tensor | None = None


@dataclass
class PairMonitor:
    """Similarities for the log, without gradient; all of shape (N,).

    Attributes:
        nearest (Tensor): Largest similarity of all keys not left out.
        nearest_negative (Tensor): Largest similarity of a negative.
        positive_sum (Tensor): Sum of the positives' similarities.
        negative_sum (Tensor): Sum of the negatives' similarities.
        num_positives (Tensor): Number of positives, float.
        num_negatives (Tensor): Number of negatives, float.
    """

    nearest: Tensor
    nearest_negative: Tensor
    positive_sum: Tensor
    negative_sum: Tensor
    num_positives: Tensor
    num_negatives: Tensor


def dense_statistics(logits: Tensor, positives: Tensor) -> PairStatistics:
    """Compute all statistics from the matrix of logits.

    Args:
        logits (Tensor): Shape (N, M), float. ``-inf`` leaves a negative out.
        positives (Tensor): Shape (N, M), bool; all other keys are negatives.

    Returns:
        PairStatistics: All fields, differentiable with respect to ``logits``.
    """
    count = positives.sum(dim=1).to(logits.dtype)
    return PairStatistics(
        negative=_masked_logsumexp(logits, ~positives),
        positive=_masked_logsumexp(logits, positives),
        inverse_positive=_masked_logsumexp(-logits, positives),
        positive_mean=logits.masked_fill(~positives, 0).sum(1) / count,
        num_positives=count,
        own=logits[:, 0],
    )


def _masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    # torch.logsumexp has NaN gradients for a row without entries, but
    # masked_fill's backward replaces those by zero.
    return values.masked_fill(~mask, float('-inf')).logsumexp(dim=1)


def dense_monitor(
    similarity: Tensor, positives: Tensor, ignored: Tensor
) -> PairMonitor:
    """Compute the log values from the matrix of similarities.

    Args:
        similarity (Tensor): Shape (N, M), float.
        positives (Tensor): Shape (N, M), bool.
        ignored (Tensor): Keys that are neither, shape (N, M), bool.

    Returns:
        PairMonitor: Without gradient.
    """
    similarity = similarity.detach()
    negatives = ~(positives | ignored)
    lowest = float('-inf')
    return PairMonitor(
        nearest=similarity.masked_fill(ignored, lowest).amax(1),
        nearest_negative=similarity.masked_fill(~negatives, lowest).amax(1),
        positive_sum=similarity.masked_fill(~positives, 0).sum(1),
        negative_sum=similarity.masked_fill(~negatives, 0).sum(1),
        num_positives=positives.sum(1).to(similarity.dtype),
        num_negatives=negatives.sum(1).to(similarity.dtype),
    )


def streamed_statistics(
    query: Tensor,
    own_key: Tensor,
    blocks: Sequence[KeyBlock],
    temperature: float,
    positive_temperature: float | None = None,
    statistics: Sequence[str] = ('inverse_positive',),
    chunk_size: int | None = None,
) -> tuple[PairStatistics, PairMonitor]:
    """Compute the statistics of each query in one pass over the keys.

    Args:
        query (Tensor): Shape (N, C), float. Half precision is computed in
            float32, also under autocast.
        own_key (Tensor): Each query's own key, always a positive, (N, C).
        blocks (Sequence[KeyBlock]): All other keys.
        temperature (float): Divides the similarities of negatives.
        positive_temperature (float, optional): Divides those of positives.
            Defaults to ``temperature``.
        statistics (Sequence[str]): Optional fields to compute.
        chunk_size (int, optional): Keys at a time. Defaults to what suits
            the device.

    Returns:
        tuple[PairStatistics, PairMonitor]: The statistics, differentiable
        with respect to ``query``, and similarities for the log.
    """
    query = query.to(torch.promote_types(query.dtype, torch.float32))
    with torch.autocast(device_type=query.device.type, enabled=False):
        # Another implementation of the pass, such as one fused kernel, plugs
        # in here: it has to fill the same PairSums.
        with torch.no_grad():
            sums = PairSums(
                query.detach(),
                own_key.to(query.dtype),
                temperature,
                positive_temperature or temperature,
                statistics,
            )
            for block in blocks:
                sums.add_block(block, chunk_size)
        return sums.statistics(query), sums.monitor()


class RunningLogSum:
    r"""Accumulates :math:`\log \sum_j e^{x_{ij}}` over chunks of keys j.

    Beside it :math:`\sum_j e^{x_{ij}} k_j`, which gives the gradient with
    respect to a query whose scores are :math:`x_{ij} = q_i \cdot k_j`. A
    running maximum keeps the exponentials in range, as in online softmax
    (arXiv 1805.02867).

    Args:
        like (Tensor): Shape (N, C); gives dtype and device.

    Attributes:
        maximum (Tensor): Largest score so far, shape (N,).
        total (Tensor): Sum of e^(score - maximum), shape (N,).
        weighted (Tensor): The same sum of keys, shape (N, C).
    """

    def __init__(self, like: Tensor) -> None:
        # Finite, so that the difference of two maxima is never NaN.
        lowest = torch.finfo(like.dtype).min / 2
        self.maximum = like.new_full((len(like),), lowest)
        self.total = like.new_zeros(len(like))
        self.weighted = torch.zeros_like(like)

    def add(self, scores: Tensor, keys: Tensor) -> None:
        """Add B keys for all queries.

        Args:
            scores (Tensor): Shape (N, B); ``-inf`` leaves an entry out.
                Overwritten.
            keys (Tensor): Shape (B, C).
        """
        maximum = self._raise_maximum(scores.amax(dim=1))
        weights = scores.sub_(maximum.unsqueeze(1)).exp_()
        self.total += weights.sum(dim=1)
        self.weighted.addmm_(weights, keys)

    def add_pairs(self, rows: Tensor, scores: Tensor, keys: Tensor) -> None:
        """Add single pairs of a query and a key.

        Args:
            rows (Tensor): Query of each pair, shape (E,), int64.
            scores (Tensor): Shape (E,).
            keys (Tensor): Shape (E, C).
        """
        largest = self.maximum.scatter_reduce(0, rows, scores, 'amax')
        maximum = self._raise_maximum(largest)
        weights = (scores - maximum[rows]).exp_()
        self.total.index_add_(0, rows, weights)
        self.weighted.index_add_(0, rows, weights.unsqueeze(1) * keys)

    def _raise_maximum(self, largest: Tensor) -> Tensor:
        """Rescale the sums to a new maximum and return it."""
        maximum = torch.maximum(self.maximum, largest)
        scale = (self.maximum - maximum).exp_()
        self.total *= scale
        self.weighted *= scale.unsqueeze(1)
        self.maximum = maximum
        return maximum

    @property
    def value(self) -> Tensor:
        """The log-sum, shape (N,); ``-inf`` where nothing was added."""
        return self.total.log() + self.maximum

    @property
    def mean_key(self) -> Tensor:
        """Weighted mean key, shape (N, C); zero where nothing was added."""
        # Where anything was added the total is at least 1, up to rounding.
        return self.weighted / self.total.clamp(min=0.5).unsqueeze(1)


class PairSums:
    """What a pass over the keys accumulates, starting with the own keys.

    Scores are similarities divided by ``temperature``; sums and counts have
    shape (N,) and the dtype of the query.

    Args:
        query (Tensor): Shape (N, C).
        own_key (Tensor): Each query's own key, shape (N, C).
        temperature (float): Divides the similarities of negatives.
        positive_temperature (float): Divides those of positives.
        statistics (Sequence[str]): Optional fields of
            :class:`PairStatistics` to compute.
    """

    def __init__(
        self,
        query: Tensor,
        own_key: Tensor,
        temperature: float,
        positive_temperature: float,
        statistics: Sequence[str],
    ) -> None:
        self.query = query / temperature
        self.temperature = temperature
        self.own = (self.query * own_key).sum(dim=1)
        # What turns a score into the exponent of each log-sum.
        self.positive_factor = factor = temperature / positive_temperature
        factors = dict(positive=factor, inverse_positive=-factor)
        self.factors = {n: factors[n] for n in factors if n in statistics}
        self.log_sums = {
            name: RunningLogSum(query) for name in ('negative', *self.factors)
        }
        rows = torch.arange(len(query), device=query.device)
        for name, factor in self.factors.items():
            self.log_sums[name].add_pairs(rows, self.own * factor, own_key)
        wants_mean = 'positive_mean' in statistics
        self.positive_keys = own_key.clone() if wants_mean else None
        self.num_positives = torch.ones_like(self.own)
        self.positive_sum = self.own.clone()
        self.nearest = self.own.clone()  # of the positives
        # Of all other keys, and of those that are left out.
        self.num_keys, self.score_sum = 0, torch.zeros_like(self.own)
        self.num_ignored = torch.zeros_like(self.own)
        self.ignored_sum = torch.zeros_like(self.own)

    def add_block(self, block: KeyBlock, chunk_size: int | None) -> None:
        """Add the keys of a block, ``chunk_size`` at a time."""
        size = chunk_size or _chunk_size(len(self.query), block.keys)
        for start in range(0, len(block.keys), size):
            chunk = slice(start, min(start + size, len(block.keys)))
            keys = block.keys[chunk].to(self.query.dtype)
            self._add_chunk(keys, *block.masks(chunk))

    def _add_chunk(
        self, keys: Tensor, positives: Tensor | None, ignored: Tensor | None
    ) -> None:
        scores = self.query @ keys.T
        self.num_keys += len(keys)
        self.score_sum += self.query @ keys.sum(dim=0)
        if positives is not None and _is_sparse(positives):
            self._add_listed(scores, keys, positives)
        elif positives is not None:
            self._add_masked(scores, keys, positives)
        if ignored is not None:
            self.num_ignored += ignored.sum(dim=1)
            self.ignored_sum += torch.where(ignored, scores, 0).sum(dim=1)
            scores.masked_fill_(ignored, float('-inf'))
        self.log_sums['negative'].add(scores, keys)

    def _add_listed(
        self, scores: Tensor, keys: Tensor, positives: Tensor
    ) -> None:
        """Add few positives one by one, and remove them from ``scores``."""
        # On a mostly empty mask 10 times as fast as torch's nonzero.
        places = torch.from_numpy(np.flatnonzero(positives.numpy()))
        rows, columns = places // len(keys), places % len(keys)
        picked, keys = scores[rows, columns], keys[columns]
        scores[rows, columns] = float('-inf')
        for name, factor in self.factors.items():
            self.log_sums[name].add_pairs(rows, picked * factor, keys)
        if self.positive_keys is not None:
            self.positive_keys.index_add_(0, rows, keys)
        self.num_positives.index_add_(0, rows, torch.ones_like(picked))
        self.positive_sum.index_add_(0, rows, picked)
        self.nearest.scatter_reduce_(0, rows, picked, 'amax')

    def _add_masked(
        self, scores: Tensor, keys: Tensor, positives: Tensor
    ) -> None:
        """Add any number of positives, and remove them from ``scores``."""
        for name, factor in self.factors.items():
            values = torch.where(positives, scores * factor, float('-inf'))
            self.log_sums[name].add(values, keys)
        if self.positive_keys is not None:
            self.positive_keys.addmm_(positives.to(keys.dtype), keys)
        self.num_positives += positives.sum(dim=1)
        self.positive_sum += torch.where(positives, scores, 0).sum(dim=1)
        nearest = torch.where(positives, scores, float('-inf')).amax(dim=1)
        self.nearest = torch.maximum(self.nearest, nearest)
        scores.masked_fill_(positives, float('-inf'))

    def statistics(self, query: Tensor) -> PairStatistics:
        """Return the statistics as differentiable functions of ``query``."""
        factors = dict(negative=1.0, **self.factors)
        fields = {
            name: attach_gradient(
                query,
                log_sum.value,
                log_sum.mean_key * (factors[name] / self.temperature),
            )
            for name, log_sum in self.log_sums.items()
        }
        if self.positive_keys is not None:
            weight = self.positive_factor / self.num_positives
            fields['positive_mean'] = attach_gradient(
                query,
                self.positive_sum * weight,
                self.positive_keys * (weight / self.temperature).unsqueeze(1),
            )
        return PairStatistics(num_positives=self.num_positives, **fields)

    def monitor(self) -> PairMonitor:
        """Return the similarities for the log."""
        other_positives = self.positive_sum - self.own
        negative_sum = self.score_sum - other_positives - self.ignored_sum
        num_others = self.num_positives - 1 + self.num_ignored
        negative = self.log_sums['negative']
        nearest_negative = negative.maximum.masked_fill(
            negative.total == 0, float('-inf')
        )
        nearest = torch.maximum(self.nearest, nearest_negative)
        return PairMonitor(
            nearest=nearest * self.temperature,
            nearest_negative=nearest_negative * self.temperature,
            positive_sum=self.positive_sum * self.temperature,
            negative_sum=negative_sum * self.temperature,
            num_positives=self.num_positives,
            num_negatives=self.num_keys - num_others,
        )


def attach_gradient(query: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """Return a known value with a known gradient.

    Args:
        query (Tensor): What the value is a function of, shape (N, C).
        value (Tensor): Shape (N,).
        gradient (Tensor): Of the value with respect to ``query``, (N, C).

    Returns:
        Tensor: The value, differentiable once with respect to ``query``.
    """
    return _AttachGradient.apply(query, value, gradient)


class _AttachGradient(torch.autograd.Function):
    """Return ``value`` (N,), with ``gradient`` (N, C) for ``query``."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, value: Tensor, gradient: Tensor
    ) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        (gradient,) = ctx.saved_tensors
        return grad_output.unsqueeze(1) * gradient, None, None


def _chunk_size(num_queries: int, keys: Tensor) -> int:
    scores = CHUNK_SCORES.get(keys.device.type, CHUNK_SCORES_DEFAULT)
    size = max(scores // num_queries, 1)
    return min(size, CHUNK_KEYS_CPU) if keys.is_cpu else size


def _is_sparse(mask: Tensor) -> bool:
    """Whether few entries are set. Never on a GPU: asking would block."""
    return mask.is_cpu and SPARSE * int(mask.count_nonzero()) < mask.numel()
