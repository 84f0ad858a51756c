"""What a contrastive loss needs to know of one query: sums over its keys.

Every loss of this package is a function of a few numbers per query, each a
sum over the query's positives or negatives. They are computed either from the
whole matrix of logits (here: short, readable, the reference) or chunk by
chunk over the queue (``streamed.py``: no matrix is kept).
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class PairStatistics:
    r"""Sums over the positives P and negatives N of each query.

    With logits :math:`s` (similarity divided by the temperature). All fields
    have shape (N,); a sum over nothing is ``-inf``. A field that the loss
    does not name in ``ContrastiveLoss.statistics`` may be None.

    Attributes:
        negative (Tensor): :math:`\log \sum_{n \in N} e^{s_n}`.
        positive (Tensor, optional): :math:`\log \sum_{p \in P} e^{s_p}`.
        inverse_positive (Tensor, optional):
            :math:`\log \sum_{p \in P} e^{-s_p}`.
        positive_mean (Tensor, optional): Mean of :math:`s_p` over P.
        num_positives (Tensor): Size of P, in the dtype of the logits.
    """

    negative: Tensor
    num_positives: Tensor
    positive: Tensor | None = None
    inverse_positive: Tensor | None = None
    positive_mean: Tensor | None = None


def dense_statistics(logits: Tensor, positives: Tensor) -> PairStatistics:
    """Compute all statistics from the whole matrix of logits.

    Args:
        logits (Tensor): Shape (N, M), float. ``-inf`` leaves a key out.
        positives (Tensor): Shape (N, M), bool; every other key is negative.

    Returns:
        PairStatistics: All fields, differentiable with respect to ``logits``.
    """
    count = positives.sum(dim=1).to(logits.dtype)
    return PairStatistics(
        negative=_logsumexp(logits, ~positives),
        positive=_logsumexp(logits, positives),
        inverse_positive=_logsumexp(-logits, positives),
        positive_mean=logits.masked_fill(~positives, 0).sum(1) / count,
        num_positives=count,
    )


def _logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    # The gradient of a row without entries is NaN inside torch.logsumexp;
    # it meets masked entries only, where masked_fill's backward drops it.
    return values.masked_fill(~mask, float('-inf')).logsumexp(dim=1)
