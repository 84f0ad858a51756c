"""Which keys are positives, negatives or left out: the labeling rules.

Published rules (UniMoCo, arXiv 2103.10773): a key of the queue is a positive
if its label is known and equals the query's known label; every other key of
the queue is a negative, unlabeled ones included.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .labels import SampleLabels
from .statistics import PairList

# Listing pairs pays if they are fewer than one in so many.
SPARSE = 32
# Labels above are not looked up in a table of all labels.
LARGEST_LABEL = 2**20


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
    return queries.labels_to_match.unsqueeze(1) == keys.labels.unsqueeze(0)


def list_same_class(
    queries: SampleLabels, keys: SampleLabels
) -> PairList | None:
    """List what :func:`same_class` marks, without comparing all pairs.

    Each key looks up its label in a table of the queries' labels, so the cost
    hardly depends on how many are labeled. On a CPU only: a GPU would have
    to be waited for, to learn how many pairs there are.

    Args:
        queries (SampleLabels): N samples of one class at most.
        keys (SampleLabels): M samples of one class at most.

    Returns:
        PairList | None: In the order of the keys. None if there are too many
        to list, or labels too large for a table.
    """
    highest = int(queries.labels.max())
    if highest > LARGEST_LABEL:
        return None
    # By label + 1: the unlabeled come first, and what no query has last.
    sizes = torch.bincount(queries.labels + 1, minlength=highest + 3)
    starts = sizes.cumsum(dim=0) - sizes
    sizes[0] = 0
    at = keys.labels.clamp(max=highest + 1) + 1
    # Pairs of each key: a run of the sorted queries.
    lengths = sizes.index_select(0, at)
    matched = lengths.nonzero().squeeze(1)
    lengths, at = lengths[matched], at[matched]
    count = int(lengths.sum())
    if count * SPARSE >= len(queries) * len(keys):
        return None
    ends = lengths.cumsum(dim=0)
    runs = torch.stack([matched, starts[at] - ends + lengths])
    columns, first = runs.repeat_interleave(lengths, 1, output_size=count)
    order = queries.labels.argsort(stable=True)
    return PairList(order[first + torch.arange(count)], columns)


def same_sample(queries: SampleLabels, keys: SampleLabels) -> Tensor:
    """Pairs that are the same sample of the data set, shape (N, M), bool."""
    indices = _indices_to_match(queries)
    return indices.unsqueeze(1) == keys.indices.unsqueeze(0)


def _indices_to_match(queries: SampleLabels) -> Tensor:
    """Indices (N,) where an unknown one equals no unknown one of a key."""
    return queries.indices.masked_fill(queries.indices < 0, -2)


@dataclass
class QueueTargets:
    """What each key of the queue is to each query.

    Attributes:
        queries (SampleLabels): N samples.
        keys (SampleLabels): K samples.
        ignore_unlabeled_keys (bool): Unlabeled keys are no negatives of
            labeled queries.
        exclude_own_keys (bool): Older keys of the query's own sample are
            neither positives nor negatives.
    """

    queries: SampleLabels
    keys: SampleLabels
    ignore_unlabeled_keys: bool = False
    exclude_own_keys: bool = False

    def pairs(self, part: slice) -> PairList | None:
        """List the positives where that pays: on a CPU, if they are few."""
        queries, keys = self.queries, self.keys[part]
        device = queries.labels.device.type
        if (
            not queries.any_known
            or queries.labels.dim() > 1
            or device != 'cpu'
        ):
            return None
        pairs = list_same_class(queries, keys)
        if pairs is None or not self.exclude_own_keys:
            return pairs
        own = _indices_to_match(queries)[pairs.rows]
        kept = own != keys.indices[pairs.columns]
        return PairList(pairs.rows[kept], pairs.columns[kept])

    def positives(self, part: slice) -> Tensor | None:
        """Mark the positives, shape (N, part), bool; None for "none"."""
        if not self.queries.any_known:
            return None
        keys = self.keys[part]
        positives = same_class(self.queries, keys)
        if self.exclude_own_keys:
            positives &= ~same_sample(self.queries, keys)
        return positives

    def ignored(self, part: slice) -> Tensor | None:
        """Mark what is left out, shape (N, part), bool; None for "none"."""
        ignored, keys = None, self.keys[part]
        if self.ignore_unlabeled_keys and self.queries.any_known:
            ignored = self.queries.known.unsqueeze(1) & ~keys.known
        if not self.exclude_own_keys:
            return ignored
        own = same_sample(self.queries, keys)
        return own if ignored is None else ignored | own


@dataclass
class BatchTargets:
    """What each key of the current batch is to each query.

    Keys of the query's known label are further positives; all others,
    the query's own key first of all, are left out.

    Attributes:
        queries (SampleLabels): N samples.
        keys (SampleLabels): All samples of the batch, of all ranks.
        offset (int): Place of the first query's own key among the keys.
        exclude_own_keys (bool): As in :class:`QueueTargets`, for a sample
            that is drawn twice into one batch.
    """

    queries: SampleLabels
    keys: SampleLabels
    offset: int
    exclude_own_keys: bool = False

    def pairs(self, part: slice) -> None:
        """List nothing: the matrix of a batch is small."""

    def positives(self, part: slice) -> Tensor:
        """Mark the positives, shape (N, part), bool."""
        keys = self.keys[part]
        positives = same_class(self.queries, keys)
        device = positives.device
        own = torch.arange(len(self.queries), device=device) + self.offset
        place = torch.arange(len(keys), device=device) + part.start
        positives &= own.unsqueeze(1) != place.unsqueeze(0)
        if self.exclude_own_keys:
            positives &= ~same_sample(self.queries, keys)
        return positives

    def ignored(self, part: slice) -> Tensor:
        """Mark all others, shape (N, part), bool."""
        return ~self.positives(part)
