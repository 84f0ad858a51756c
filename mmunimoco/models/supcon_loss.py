"""SupCon, the supervised contrastive loss."""

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from .loss_base import ContrastiveLoss
from .statistics import PairStatistics


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

    Raises:
        ValueError: If ``reduction_position`` is neither.
    """

    def __init__(self, reduction_position: str = 'out') -> None:
        super().__init__()
        if reduction_position not in ('out', 'in'):
            raise ValueError(
                "SupConLoss.reduction_position must be 'out' or 'in', but "
                f'got {reduction_position!r}; change '
                'model.head.loss.reduction_position'
            )
        self.reduction_position = reduction_position
        if reduction_position == 'out':
            self.statistics = ('positive', 'positive_mean')
        else:
            self.statistics = ('positive',)

    def from_statistics(self, statistics: PairStatistics) -> Tensor:
        """Return the loss of each query, shape (N,)."""
        if self.reduction_position == 'out':
            inner = statistics.positive_mean
        else:
            inner = statistics.positive - statistics.num_positives.log()
        # log of the sum over A, minus the mean over P; taken apart so that
        # one positive gives softplus(negative - positive) to the last digit.
        gap = statistics.negative - statistics.positive
        everything = torch.logaddexp(gap, torch.zeros_like(gap))
        return everything + (statistics.positive - inner)
