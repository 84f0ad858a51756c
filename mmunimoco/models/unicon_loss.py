"""UniCon, the unified contrastive loss of UniMoCo."""

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from .loss_base import ContrastiveLoss
from .statistics import PairStatistics


@MODELS.register_module()
class UniConLoss(ContrastiveLoss):
    r"""Unified contrastive loss for any number of positives and negatives.

    .. math::
        L = \log\Big(1 + \sum_{n \in N} e^{s_n} \sum_{p \in P} e^{-s_p}\Big)

    averaged over the queries (UniMoCo, arXiv 2103.10773). It is computed as
    :math:`\mathrm{softplus}(\log\sum_N e^{s_n} + \log\sum_P e^{-s_p})`, which
    neither overflows nor loses small values. With one positive it is InfoNCE.

    Args:
        positive_reduction (str): 'sum' as published, or 'mean', which divides
            the sum over the positives by their number. Defaults to 'sum'.

    Raises:
        ValueError: If ``positive_reduction`` is neither.
    """

    def __init__(self, positive_reduction: str = 'sum') -> None:
        super().__init__()
        if positive_reduction not in ('sum', 'mean'):
            raise ValueError(
                "UniConLoss.positive_reduction must be 'sum' or 'mean', but "
                f'got {positive_reduction!r}; change '
                'model.head.loss.positive_reduction'
            )
        self.positive_reduction = positive_reduction

    statistics = ('inverse_positive',)

    def from_statistics(self, statistics: PairStatistics) -> Tensor:
        """Return the loss of each query, shape (N,)."""
        exponent = statistics.negative + statistics.inverse_positive
        if self.positive_reduction == 'mean':
            exponent = exponent - statistics.num_positives.log()
        # logaddexp(x, 0) is softplus without torch's cut-off at x = 20.
        return torch.logaddexp(exponent, torch.zeros_like(exponent))
