"""The shape every contrastive loss of this package has."""

from abc import ABCMeta, abstractmethod

import torch
from torch import Tensor, nn

from .statistics import PairStatistics, dense_statistics


class ContrastiveLoss(nn.Module, metaclass=ABCMeta):
    """Base class: a loss as a formula over :class:`PairStatistics`.

    A subclass names the statistics its formula reads, so that the streamed
    computation makes no others, and writes the formula once; it then serves
    the dense and the streamed form alike.

    Attributes:
        statistics (tuple[str]): Optional fields of :class:`PairStatistics`
            that :meth:`from_statistics` reads.
        uses_labels (bool): False if the query's own key is the only positive,
            whatever the labels say.
    """

    statistics: tuple[str, ...] = ()
    uses_labels: bool = True

    @abstractmethod
    def from_statistics(self, statistics: PairStatistics) -> Tensor:
        """Return the loss of each query, shape (N,)."""

    def forward(self, logits: Tensor, positives: Tensor) -> Tensor:
        """Compute the loss from the whole matrix of logits.

        Args:
            logits (Tensor): Similarities already divided by the temperature,
                shape (N, M), float. Half precision is computed in float32.
                ``-inf`` leaves a key out.
            positives (Tensor): Shape (N, M), bool. Column 0 is the query's
                own key.

        Returns:
            Tensor: Scalar mean over the queries.

        Raises:
            ValueError: If the shapes or dtypes are not as described.
        """
        _check_pairs(logits, positives)
        if not self.uses_labels:
            positives = torch.zeros_like(positives)
            positives[:, 0] = True
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # Autocast would run logsumexp's inputs in float32 anyway; nothing
        # here is a matrix product, so it needs no special care.
        return self.from_statistics(dense_statistics(logits, positives)).mean()


def _check_pairs(logits: Tensor, positives: Tensor) -> None:
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
