"""Which keys are positives, negatives or left out: the labeling rules.

Published rules (UniMoCo, arXiv 2103.10773): a key of the queue is a positive
if its label is known and equals the query's known label; every other key of
the queue is a negative, unlabeled ones included.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..losses import PairList
from .sample_labels import UNLABELED, SampleLabels

# Listing pairs pays if they are fewer than one in so many.
SPARSE = 32


def same_class(queries: SampleLabels, keys: SampleLabels) -> Tensor:
    """Pairs that share a known label.

    Args:
        queries (SampleLabels): N samples.
        keys (SampleLabels): M samples.

    Returns:
        Tensor: Shape (N, M), bool.
    """
    if queries.labels.dim() == 2:
        # Number of shared classes; float32 counts up to 2**24 exactly.
        shared = queries.labels.float() @ keys.labels.float().T
        return shared > 0
    labels = _labels_to_match(queries)
    return labels.unsqueeze(1) == keys.labels.unsqueeze(0)


def _labels_to_match(queries: SampleLabels) -> Tensor:
    """Labels (N,) where an unlabeled query equals no unlabeled key."""
    return queries.labels.masked_fill(~queries.known, UNLABELED - 1)


def list_same_class(
    queries: SampleLabels, keys: SampleLabels
) -> PairList | None:
    """List what :func:`same_class` marks, without comparing all pairs.

    Keys are looked up among the sorted labels of the queries, so the cost
    hardly depends on how many are labeled. On a CPU only: a GPU would have
    to be waited for, to learn how many pairs there are.

    Args:
        queries (SampleLabels): N samples of one class at most.
        keys (SampleLabels): M samples of one class at most.

    Returns:
        PairList | None: None if there are too many to list.
    """
    labels, order = _labels_to_match(queries).sort(stable=True)
    classes, sizes = torch.unique_consecutive(labels, return_counts=True)
    at = torch.searchsorted(classes, keys.labels).clamp_(max=len(classes) - 1)
    # Pairs of each key: a run of the sorted queries.
    lengths = sizes[at] * (classes[at] == keys.labels)
    ends = lengths.cumsum(dim=0)
    count = int(ends[-1])
    if count * SPARSE >= len(queries) * len(keys):
        return None
    columns = torch.repeat_interleave(lengths, output_size=count)
    first = (sizes.cumsum(dim=0) - sizes)[at]
    places = torch.arange(count) + (first - ends + lengths)[columns]
    rows, by_row = order[places].sort()
    return PairList(rows, columns[by_row])


def same_sample(queries: SampleLabels, keys: SampleLabels) -> Tensor:
    """Pairs that are the same sample of the data set, shape (N, M), bool."""
    indices = queries.indices.masked_fill(queries.indices < 0, -2)
    return indices.unsqueeze(1) == keys.indices.unsqueeze(0)


@dataclass
class QueueRule:
    """What each key of the queue is to each query.

    Attributes:
        ignore_unlabeled_keys (bool): Unlabeled keys are no negatives of
            labeled queries.
        exclude_own_keys (bool): Older keys of the query's own sample are
            neither positives nor negatives.
    """

    ignore_unlabeled_keys: bool = False
    exclude_own_keys: bool = False

    def __call__(
        self, queries: SampleLabels, keys: SampleLabels
    ) -> tuple[Tensor | PairList | None, Tensor | None]:
        """Return positives and left-out keys.

        Each is (N, M), bool, or None for "none"; on a CPU few positives come
        as a list.
        """
        positives, ignored = None, None
        if queries.any_known:
            positives = _positives(queries, keys)
            if self.ignore_unlabeled_keys:
                ignored = queries.known.unsqueeze(1) & ~keys.known
        if self.exclude_own_keys:
            own = same_sample(queries, keys)
            positives = _without(positives, own)
            ignored = own if ignored is None else ignored | own
        return positives, ignored


def _positives(queries: SampleLabels, keys: SampleLabels) -> Tensor | PairList:
    pairs = None
    if queries.labels.device.type == 'cpu' and queries.labels.dim() == 1:
        pairs = list_same_class(queries, keys)
    return same_class(queries, keys) if pairs is None else pairs


def _without(
    pairs: Tensor | PairList | None, excluded: Tensor
) -> Tensor | PairList | None:
    """The pairs that a bool matrix does not mark."""
    if isinstance(pairs, PairList):
        kept = ~excluded[pairs.rows, pairs.columns]
        return PairList(pairs.rows[kept], pairs.columns[kept])
    return None if pairs is None else pairs & ~excluded


@dataclass
class BatchRule:
    """What each key of the current batch is to each query.

    Keys of the query's known label are further positives; all others,
    the query's own key first of all, are left out.

    Attributes:
        offset (int): Place of the first query's own key among the keys.
        exclude_own_keys (bool): As in :class:`QueueRule`, for a sample that
            is drawn twice into one batch.
    """

    offset: int
    exclude_own_keys: bool = False

    def __call__(
        self, queries: SampleLabels, keys: SampleLabels, start: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return positives and left-out keys, each (N, M), bool.

        Args:
            queries (SampleLabels): N samples.
            keys (SampleLabels): M of the batch's samples.
            start (int): Place of the first of these keys in the batch.
        """
        positives = same_class(queries, keys)
        device = positives.device
        own = torch.arange(len(queries), device=device) + self.offset
        place = torch.arange(len(keys), device=device) + start
        positives &= own.unsqueeze(1) != place.unsqueeze(0)
        if self.exclude_own_keys:
            positives &= ~same_sample(queries, keys)
        return positives, ~positives
