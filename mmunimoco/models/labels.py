"""Labels of a batch: collected from data samples, checked and compared.

Rules of UniMoCo (arXiv 2103.10773): a key of the queue is a positive if its
label is known and equals the query's; every other key of the queue is a
negative, unlabeled keys included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from .collectives import upload

UNLABELED = -1


@dataclass
class SampleLabels:
    """Labels of N samples.

    Attributes:
        labels (Tensor): Shape (N,), int64, -1 for unlabeled; or multi-hot,
            shape (N, num_classes), bool, all False for unlabeled.
        indices (Tensor, optional): Identity of each image in the data set,
            shape (N,), int64, -1 for unknown. Needed by
            ``exclude_own_keys`` only.
        propagated (Tensor, optional): Labels of unlabeled keys from their
            neighbours, shape (N,), int64, -1 for none. Needed by
            ``propagate_labels`` only.
        has_labels (bool): False if the host knows that no sample is labeled.
        has_unlabeled (bool): False if the host knows that all are.
    """

    labels: Tensor
    indices: Tensor | None = None
    has_labels: bool = True
    has_unlabeled: bool = True
    propagated: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> Tensor:
        """Whether each sample is labeled, shape (N,), bool."""
        if self.labels.dim() == 2:
            return self.labels.any(dim=1)
        return self.labels != UNLABELED

    def select(self, rows: Tensor) -> 'SampleLabels':
        """Return some rows; on a GPU the host would wait for their labels."""
        labels = SampleLabels(self.labels[rows])
        known = labels.known
        return replace(
            labels,
            indices=None if self.indices is None else self.indices[rows],
            has_labels=bool(known.any()),
            has_unlabeled=not known.all(),
        )

    @staticmethod
    def join(parts: Sequence['SampleLabels']) -> 'SampleLabels':
        """Concatenate labels of one kind."""
        indices = [part.indices for part in parts]
        return SampleLabels(
            torch.cat([part.labels for part in parts]),
            None if indices[0] is None else torch.cat(indices),
            any(part.has_labels for part in parts),
            any(part.has_unlabeled for part in parts),
        )


class CollectedSamples(Sequence):
    """Data samples of a batch whose labels have been collected before.

    Each access makes its data sample anew, so reading them costs time and
    changes to them are lost.

    Args:
        load (Callable): Returns the data sample of a row of the data set.
        rows (Sequence[int]): N rows.
        collected (SampleLabels): What ``UniMoCoHead.collect`` returns for
            them.
    """

    def __init__(
        self,
        load: Callable[[int], DataSample],
        rows: Sequence[int],
        collected: SampleLabels,
    ) -> None:
        self._load = load
        self._rows = rows
        self.collected = collected

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | slice) -> DataSample | list[DataSample]:
        if isinstance(index, slice):
            return [self._load(row) for row in self._rows[index]]
        return self._load(self._rows[index])


@dataclass
class KeyBlock:
    """Keys to contrast with a batch of queries, and the labels of both.

    Attributes:
        keys (Tensor): Shape (M, C).
        key_labels (SampleLabels): Of the M keys.
        query_labels (SampleLabels): Of the N queries.
        ignore_unlabeled (bool): Whether unlabeled keys are left out of the
            negatives of labeled queries.
        exclude_own (bool): Whether other keys of the query's image are left
            out.
        own_start (int, optional): Given for the keys of the current batch:
            row ``own_start + i`` is query i's own key. Of such a block, keys
            of the query's label are positives, all others are left out.
        never_positive (Tensor, optional): Keys, shape (M,), bool, that are
            left out where they would be positives.
    """

    keys: Tensor
    key_labels: SampleLabels
    query_labels: SampleLabels
    ignore_unlabeled: bool = False
    exclude_own: bool = False
    own_start: int | None = None
    never_positive: Tensor | None = None

    def masks(self, chunk: slice) -> tuple[Tensor | None, Tensor | None]:
        """Mark the positives, and the keys left out, of a chunk of the keys.

        Args:
            chunk (slice): Selects B of the M keys.

        Returns:
            tuple[Tensor | None, Tensor | None]: Two masks of shape (N, B),
            bool, that share no entry; None instead of an empty one.
        """
        queries, keys = self.query_labels, self.key_labels
        positives = ignored = None
        if queries.has_labels or self.own_start is not None:
            positives = same_class(queries.labels, keys.labels[chunk])
            if self.ignore_unlabeled:
                unlabeled = ~SampleLabels(keys.labels[chunk]).known
                ignored = queries.known.unsqueeze(1) & unlabeled
            if self.never_positive is not None:
                left_out = positives & self.never_positive[chunk]
                positives = positives & ~left_out
                ignored = left_out if ignored is None else ignored | left_out
        if self.exclude_own:
            own = same_image(queries.indices, keys.indices[chunk])
            positives = None if positives is None else positives & ~own
            ignored = own if ignored is None else ignored | own
        if self.own_start is not None:
            positives = positives & ~self._own_keys(chunk)
            ignored = ~positives
        return positives, ignored

    def _own_keys(self, chunk: slice) -> Tensor:
        """Mark each query's own key in the batch, shape (N, B), bool."""
        device = self.keys.device
        rows = torch.arange(chunk.start, chunk.stop, device=device)
        own = torch.arange(len(self.query_labels), device=device)
        return (own + self.own_start).unsqueeze(1) == rows


def same_class(query_labels: Tensor, key_labels: Tensor) -> Tensor:
    """Compare labels; multi-hot ones match if they share a class.

    Args:
        query_labels (Tensor): Shape (N,) or (N, num_classes), as
            :attr:`SampleLabels.labels`.
        key_labels (Tensor): Shape (M,) or (M, num_classes).

    Returns:
        Tensor: Shape (N, M), bool. Unlabeled samples match nothing.
    """
    if query_labels.dim() == 2:
        # Number of shared classes; float32 counts up to 2**24 exactly.
        return query_labels.float() @ key_labels.float().T > 0
    return _match_known(query_labels, key_labels)


def draw_labeled(
    samples: SampleLabels, share: float, step: int, first: int, total: int
) -> SampleLabels:
    """Hide the labels of samples that are drawn at random.

    The draw depends on the step and on the place in the batch of all ranks
    alone, so it is the same after a restart and in any number of processes.

    Args:
        samples (SampleLabels): Of N samples.
        share (float): Probability that a sample keeps its label.
        step (int): Seed of the draw.
        first (int): Place of the first sample in the batch of all ranks.
        total (int): Size of the batch of all ranks.

    Returns:
        SampleLabels: The rest unlabeled.
    """
    if share <= 0:
        return replace(samples, has_labels=False)
    generator = torch.Generator().manual_seed(step)
    draws = torch.rand(total, generator=generator, device='cpu')
    hidden = draws[first : first + len(samples)] >= share
    hidden = upload(hidden, samples.labels.device)
    if samples.labels.dim() == 2:
        labels = samples.labels & ~hidden.unsqueeze(1)
    else:
        labels = samples.labels.masked_fill(hidden, UNLABELED)
    return replace(samples, labels=labels)


def mark_older(labels: Tensor, pointer: Tensor, newest: int) -> Tensor:
    """Mark the keys of a queue but the newest ones of each class.

    Args:
        labels (Tensor): Shape (K,), int64, -1 for unlabeled.
        pointer (Tensor): Row of the oldest key, shape (1,).
        newest (int): Number of keys of each class that are not marked.

    Returns:
        Tensor: Shape (K,), bool; unlabeled keys may be marked too.
    """
    ages = torch.arange(len(labels), device=labels.device)
    rows = (pointer - 1 - ages) % len(labels)  # from the newest
    grouped, order = labels[rows].sort(stable=True)
    # A key's place in its class is its distance from the class's first.
    places = ages - torch.searchsorted(grouped, grouped)
    older = torch.empty_like(labels, dtype=torch.bool)
    older[rows[order]] = places >= newest
    return older


def same_image(query_indices: Tensor, key_indices: Tensor) -> Tensor:
    """Compare indices of images, shape (N,) and (M,), to (N, M) bool."""
    return _match_known(query_indices, key_indices)


def _match_known(queries: Tensor, keys: Tensor) -> Tensor:
    # Unknown queries are set to -2, so they match no key.
    queries = queries.masked_fill(queries < 0, UNLABELED - 1)
    return queries.unsqueeze(1) == keys


def collect_labels(
    data_samples: Sequence[DataSample],
    num_classes: int | None = None,
    multi_label: bool = False,
) -> Tensor:
    """Collect the labels of a batch.

    A sample is unlabeled if it has no ``gt_label``, an empty one, or -1.

    Args:
        data_samples (Sequence[DataSample]): N samples.
        num_classes (int, optional): Width of the multi-hot labels.
        multi_label (bool): Whether a sample may have several classes.

    Returns:
        Tensor: On the CPU. Shape (N,), int64, -1 for unlabeled; with
        ``multi_label`` shape (N, num_classes), bool.

    Raises:
        ValueError: If a sample has several labels without ``multi_label``,
            or a class of a multi-label sample is out of range.
    """
    labels = [
        sample.gt_label.flatten() if 'gt_label' in sample else None
        for sample in data_samples
    ]
    found = [label for label in labels if label is not None]
    empty = (found[0] if found else torch.zeros(0)).new_zeros(0).long()
    labels = [empty if label is None else label for label in labels]
    if multi_label:
        counts = torch.tensor([len(label) for label in labels])
        return _multi_hot(torch.cat(labels).cpu(), counts, num_classes)
    for sample, label in zip(data_samples, labels, strict=True):
        if len(label) > 1:
            name = sample.get('img_path', sample.get('sample_idx', '?'))
            raise ValueError(
                f'image {name} has {len(label)} labels, but UniMoCoHead '
                'expects one. For several classes per image set '
                'multi_label=True and num_classes in the head'
            )
    unlabeled = empty.new_full((1,), UNLABELED)
    # One concatenation: a copy from a GPU per label would wait each time.
    return torch.cat([x if len(x) else unlabeled for x in labels]).cpu()


def _multi_hot(classes: Tensor, counts: Tensor, num_classes: int) -> Tensor:
    """Turn the class lists of all samples, end to end, into rows of bool."""
    if len(classes):
        low, high = torch.stack(classes.aminmax()).tolist()
        _check_range(low, high, UNLABELED, num_classes - 1)
    rows = torch.arange(len(counts)).repeat_interleave(counts)
    hot = torch.zeros(len(counts), num_classes, dtype=torch.bool)
    known = classes != UNLABELED
    hot[rows[known], classes[known]] = True
    return hot


def collect_indices(data_samples: Sequence[DataSample]) -> Tensor:
    """Collect an identity of each image that stays the same over a run.

    It combines ``sample_idx`` with a hash of ``img_path``, since indices of
    concatenated data sets overlap, and a file may hold several images. So a
    file in two of these data sets counts as two images.

    Args:
        data_samples (Sequence[DataSample]): N samples.

    Returns:
        Tensor: Shape (N,), int64, not negative.

    Raises:
        ValueError: If a sample has neither field.
    """
    identities = []
    for sample in data_samples:
        index, path = sample.get('sample_idx'), sample.get('img_path')
        if index is None and path is None:
            raise ValueError(
                'UniMoCoHead.exclude_own_keys=True needs the identity of each '
                'image, but a sample has neither sample_idx nor img_path. Add '
                'them to meta_keys of PackInputs'
            )
        high = 0 if path is None else crc32(str(path).encode()) >> 1
        identities.append((high << 32) + int(index or 0))
    return torch.tensor(identities)


def check_labels(
    labels: Tensor, num_classes: int | None, multi_label: bool
) -> SampleLabels:
    """Check dtype and range of the labels of a batch.

    For labels on a GPU the host has to wait, once.

    Args:
        labels (Tensor): Shape (N,), integer, -1 for unlabeled; or multi-hot,
            integer or bool, shape (N, num_classes). N >= 1.
        num_classes (int, optional): Declared number of classes.
        multi_label (bool): Which of the two.

    Returns:
        SampleLabels: The labels as int64 or, multi-hot, bool.

    Raises:
        ValueError: If they are not integers, or out of range.
    """
    if labels.is_floating_point():
        raise ValueError(f'labels must be integers, but got {labels.dtype}')
    labels = labels.long()
    if multi_label:
        fewest = labels.sum(dim=1).min()
        low, high, fewest = torch.stack([*labels.aminmax(), fewest]).tolist()
        _check_range(low, high, 0, 1)
        return SampleLabels(labels.bool(), None, high > 0, fewest == 0)
    low, high = torch.stack(labels.aminmax()).tolist()
    highest = None if num_classes is None else num_classes - 1
    _check_range(low, high, UNLABELED, highest)
    return SampleLabels(labels, None, high > UNLABELED, low == UNLABELED)


def _check_range(
    low: int, high: int, lowest: int, highest: int | None
) -> None:
    if low < lowest or (highest is not None and high > highest):
        end = 'num_classes - 1' if highest is None else highest
        raise ValueError(
            f'labels are in [{low}, {high}] but must be in [{lowest}, {end}], '
            f'where {UNLABELED} is unlabeled. Set num_classes of UniMoCoHead '
            "to the data set's number of classes, or correct the annotations"
        )
