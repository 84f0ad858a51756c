"""What a contrastive loss needs to know of one query: sums over its keys.

Every loss of this package is a function of a few numbers per query, each a
sum over the query's positives or negatives. They are computed either from the
whole matrix of logits (here: short, readable, the reference) or chunk by
chunk over the queue (``streamed.py``: no matrix is kept).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class PairList:
    """Pairs of queries and keys, listed: the sparse form of a bool matrix.

    Attributes:
        rows (Tensor): Query of each pair, shape (E,), int64.
        columns (Tensor): Key of each pair, shape (E,), int64.
    """

    rows: Tensor
    columns: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def by_row(self) -> tuple['PairList', Tensor]:
        """Sort the pairs by their queries.

        Returns:
            tuple[PairList, Tensor]: The pairs, and the place of each before,
            shape (E,), int64.
        """
        rows, order = self.rows.sort(stable=True)
        return PairList(rows, self.columns[order]), order

    def split(self, starts: Sequence[int]) -> list['PairList']:
        """Cut pairs in the order of their keys into those of chunks of keys.

        Args:
            starts (Sequence[int]): First key of each chunk, ascending.

        Returns:
            list[PairList]: Of each chunk, its keys counted from its first.
        """
        cuts = torch.searchsorted(self.columns, torch.tensor(starts))
        cuts = [*cuts.tolist(), len(self)]
        return [
            PairList(self.rows[a:b], self.columns[a:b] - start)
            for start, a, b in zip(starts, cuts, cuts[1:], strict=False)
        ]

    def sum_keys(
        self, keys: Tensor, num_rows: int, weights: Tensor | None = None
    ) -> Tensor:
        """Sum the keys of each query without gathering them first.

        The pairs must be in the order of their queries.

        Args:
            keys (Tensor): Shape (M, C).
            num_rows (int): Number of queries N.
            weights (Tensor, optional): Of the pairs, shape (E,).

        Returns:
            Tensor: Shape (N, C); zero for queries without a pair.
        """
        queries = torch.arange(num_rows, device=self.rows.device)
        starts = torch.searchsorted(self.rows, queries)
        return functional.embedding_bag(
            self.columns,
            keys,
            starts,
            mode='sum',
            per_sample_weights=weights,
        )


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
