"""Contrastive losses over any number of positives and negatives.

Each loss is a formula over a few sums per query (:class:`PairStatistics`), so
it is written once and serves both the matrix of logits and the streamed loop
over the queue.
"""

import math
from abc import ABCMeta, abstractmethod
from numbers import Real

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .pair_statistics import PairStatistics, dense_statistics


class ContrastiveLoss(nn.Module, metaclass=ABCMeta):
    """Base class of losses that are functions of :class:`PairStatistics`.

    Attributes:
        statistics (tuple[str]): Optional fields of :class:`PairStatistics`
            that :meth:`from_statistics` reads; no others are computed.
        uses_labels (bool): False if the query's own key is the only positive,
            whatever the labels.
        own_key_weight (float | str): Weight of the own key relative to each
            other positive, in losses that have it as an argument;
            'balanced' for that of all other positives together.
    """

    statistics: tuple[str, ...] = ()
    uses_labels: bool = True
    own_key_weight: float | str = 1.0

    @abstractmethod
    def from_statistics(self, statistics: PairStatistics) -> Tensor:
        """Return the loss of each query, shape (N,)."""

    def _set_own_key_weight(self, weight: float | str) -> None:
        is_number = isinstance(weight, Real) and not isinstance(weight, bool)
        # A smaller weight would be lost in rounding (see _weighted).
        is_valid = is_number and 0.01 <= weight < math.inf
        if weight != 'balanced' and not is_valid:
            raise ValueError(
                f'{type(self).__name__}.own_key_weight must be a number >= '
                f"0.01 or 'balanced', but got {weight!r}; change "
                'model.head.loss.own_key_weight'
            )
        self.own_key_weight = weight
        if weight != 1:
            self.statistics = (*self.statistics, 'own')

    def _extra_weight(self, count: Tensor) -> Tensor | float:
        """Return the own key's weight - 1, for P of so many keys."""
        if self.own_key_weight == 'balanced':
            return (count - 2).clamp(min=0)  # 0 also without other positives
        return self.own_key_weight - 1

    def _weighted(self, log_sum: Tensor, own: Tensor, count: Tensor) -> Tensor:
        """Weight the own key's term in a log-sum over the positives.

        Args:
            log_sum (Tensor): Log of the sum of e^x over P, shape (N,).
            own (Tensor): x of the own key, shape (N,).
            count (Tensor): Size of P, shape (N,).

        Returns:
            Tensor: The same with weights of mean 1, shape (N,).
        """
        extra = self._extra_weight(count)
        # The own key's share of the sum; rounding may take it above 1.
        share = (own - log_sum).clamp(max=0).exp()
        return log_sum + (extra * share).log1p() - (1 + extra / count).log()

    def forward(self, logits: Tensor, positives: Tensor) -> Tensor:
        """Compute the loss from the whole matrix of logits.

        Args:
            logits (Tensor): Similarities divided by the temperature, shape
                (N, M), float. Half precision is computed in float32.
                ``-inf`` leaves a negative out.
            positives (Tensor): Shape (N, M), bool. Column 0 is the query's
                own key.

        Returns:
            Tensor: Scalar, mean over the queries.

        Raises:
            ValueError: If shapes or dtypes are not as described.
        """
        return self.losses(logits, positives).mean()

    def losses(self, logits: Tensor, positives: Tensor) -> Tensor:
        """Return the loss of each query, shape (N,); see :meth:`forward`."""
        if logits.dim() != 2 or logits.shape != positives.shape:
            raise ValueError(
                'logits and positives must both have shape (N, M), but got '
                f'{tuple(logits.shape)} and {tuple(positives.shape)}'
            )
        if positives.dtype != torch.bool or not logits.is_floating_point():
            raise ValueError(
                'logits must be floating point and positives bool, but got '
                f'{logits.dtype} and {positives.dtype}'
            )
        if not self.uses_labels:
            positives = torch.zeros_like(positives)
            positives[:, 0] = True
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.from_statistics(dense_statistics(logits, positives))


@MODELS.register_module()
class UniConLoss(ContrastiveLoss):
    r"""Unified contrastive loss of UniMoCo (arXiv 2103.10773).

    .. math::
        L = \log\Big(1 + \sum_{n \in N} e^{s_n} \sum_{p \in P} e^{-s_p}\Big)

    averaged over the queries, computed as
    :math:`\mathrm{softplus}(\log\sum_N e^{s_n} + \log\sum_P e^{-s_p})`, which
    neither overflows nor loses small values. With one positive it is InfoNCE.

    Args:
        positive_reduction (str): 'sum' as published, or 'mean', which divides
            the sum over the positives by their number. Defaults to 'sum'.
        own_key_weight (float | str): Weight of :math:`e^{-s_0}`, the own
            key's, in the sum over the positives, relative to each other
            positive; 'balanced' for that of all other positives together,
            :math:`|P| - 1`. The weights are scaled to a mean of 1, so a query
            without other positives has the same loss with any weight.
            Defaults to 1, as published.

    Raises:
        ValueError: If ``positive_reduction`` is neither, or the weight is
            not a number >= 0.01.
    """

    statistics = ('inverse_positive',)

    def __init__(
        self,
        positive_reduction: str = 'sum',
        own_key_weight: float | str = 1.0,
    ) -> None:
        super().__init__()
        if positive_reduction not in ('sum', 'mean'):
            raise ValueError(
                "UniConLoss.positive_reduction must be 'sum' or 'mean', but "
                f'got {positive_reduction!r}; change '
                'model.head.loss.positive_reduction'
            )
        self.positive_reduction = positive_reduction
        self._set_own_key_weight(own_key_weight)

    def from_statistics(self, statistics: PairStatistics) -> Tensor:
        """Return the loss of each query, shape (N,)."""
        inverse = statistics.inverse_positive
        if self.own_key_weight != 1:
            inverse = self._weighted(
                inverse, -statistics.own, statistics.num_positives
            )
        exponent = statistics.negative + inverse
        if self.positive_reduction == 'mean':
            exponent = exponent - statistics.num_positives.log()
        return _softplus(exponent)


@MODELS.register_module()
class SupConLoss(ContrastiveLoss):
    r"""Supervised contrastive loss, with the log outside or inside the mean.

    Eq. 2 and 3 of Khosla et al. (arXiv 2004.11362), with :math:`A = P \cup N`:

    .. math::
        L_{out} = -\frac{1}{|P|} \sum_{p \in P}
            \log \frac{e^{s_p}}{\sum_{a \in A} e^{s_a}}
        \qquad
        L_{in} = -\log \frac{1}{|P|} \sum_{p \in P}
            \frac{e^{s_p}}{\sum_{a \in A} e^{s_a}}

    averaged over the queries. With one positive both are InfoNCE.

    Args:
        reduction_position (str): Where the mean over the positives stands
            relative to the log: 'out' or 'in'. Defaults to 'out'.
        own_key_weight (float | str): Weight of the own key in the mean over
            the positives, relative to each other positive; 'balanced' for
            that of all others together. The sum over A is not weighted.
            Defaults to 1, as published.

    Raises:
        ValueError: If ``reduction_position`` is neither, or the weight is
            not a number >= 0.01.
    """

    def __init__(
        self,
        reduction_position: str = 'out',
        own_key_weight: float | str = 1.0,
    ) -> None:
        super().__init__()
        if reduction_position not in ('out', 'in'):
            raise ValueError(
                "SupConLoss.reduction_position must be 'out' or 'in', but "
                f'got {reduction_position!r}; change '
                'model.head.loss.reduction_position'
            )
        self.reduction_position = reduction_position
        self.statistics = ('positive',)
        if reduction_position == 'out':
            self.statistics += ('positive_mean',)
        self._set_own_key_weight(own_key_weight)

    def from_statistics(self, statistics: PairStatistics) -> Tensor:
        """Return the loss of each query, shape (N,)."""
        positive, count = statistics.positive, statistics.num_positives
        if self.reduction_position == 'out':
            mean = statistics.positive_mean
            if self.own_key_weight != 1:
                extra = self._extra_weight(count)
                mean = mean + (statistics.own - mean) * extra / (count + extra)
        else:
            mean = positive
            if self.own_key_weight != 1:
                mean = self._weighted(mean, statistics.own, count)
            mean = mean - count.log()
        # log sum over A - mean over P, split so that one positive gives
        # InfoNCE to the last digit.
        return _softplus(statistics.negative - positive) + (positive - mean)


@MODELS.register_module()
class InfoNCELoss(ContrastiveLoss):
    r"""InfoNCE with the query's own key as the only positive.

    .. math::
        L = -\log \frac{e^{s_0}}{\sum_{a} e^{s_a}}

    averaged over the queries (Eq. 1 of MoCo, arXiv 1911.05722). Labels are
    ignored: only column 0 of ``positives`` counts and all other keys are
    negatives, so ``UniMoCo`` with this loss is MoCo v2.
    """

    statistics = ('positive',)
    uses_labels = False

    def from_statistics(self, statistics: PairStatistics) -> Tensor:
        """Return the loss of each query, shape (N,)."""
        return _softplus(statistics.negative - statistics.positive)


def _softplus(x: Tensor) -> Tensor:
    """Return log(1 + e^x), without the cut-off at x = 20 that torch has."""
    return torch.logaddexp(x, torch.zeros_like(x))
