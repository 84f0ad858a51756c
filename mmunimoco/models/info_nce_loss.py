"""InfoNCE, the loss of MoCo."""

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from .loss_base import ContrastiveLoss
from .statistics import PairStatistics


@MODELS.register_module()
class InfoNCELoss(ContrastiveLoss):
    r"""InfoNCE with the query's own key as the only positive.

    .. math::
        L = -\log \frac{e^{s_0}}{\sum_{a} e^{s_a}}

    averaged over the queries (Eq. 1 of MoCo, arXiv 1911.05722). Labels are
    ignored: of ``positives`` only column 0 counts, all other keys are
    negatives, so ``UniMoCo`` with this loss is MoCo v2.
    """

    statistics = ('positive',)
    uses_labels = False

    def from_statistics(self, statistics: PairStatistics) -> Tensor:
        """Return the loss of each query, shape (N,)."""
        gap = statistics.negative - statistics.positive
        # softplus(gap), exact also where the loss is tiny.
        return torch.logaddexp(gap, torch.zeros_like(gap))
