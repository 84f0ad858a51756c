"""Labels of a batch: from data samples to checked tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

UNLABELED = -1


@dataclass
class SampleLabels:
    """Labels of some samples, with what the optional rules need.

    Attributes:
        labels (Tensor): Shape (N,), int64, -1 for unlabeled; or multi-hot,
            shape (N, num_classes), bool, all False for unlabeled.
        indices (Tensor, optional): Identity of the sample in the data set,
            shape (N,), int64, -1 for unknown.
        any_known (bool): False if it is certain that no sample is labeled,
            which saves comparing labels.
    """

    labels: Tensor
    indices: Tensor | None = None
    any_known: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: slice) -> 'SampleLabels':
        indices = None if self.indices is None else self.indices[item]
        return SampleLabels(self.labels[item], indices, self.any_known)

    @property
    def known(self) -> Tensor:
        """Which samples are labeled, shape (N,), bool."""
        if self.labels.dim() == 2:
            return self.labels.any(dim=1)
        return self.labels != UNLABELED

    @cached_property
    def labels_to_match(self) -> Tensor:
        """Labels (N,) of which an unlabeled one equals none of others.

        Made once for all chunks of the queue.
        """
        return self.labels.masked_fill(~self.known, UNLABELED - 1)


def collect_labels(
    data_samples: Sequence[DataSample],
    num_classes: int | None = None,
    multi_label: bool = False,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """Collect the labels of a batch.

    A sample without ``gt_label``, with -1 or with an empty one, is unlabeled.

    Args:
        data_samples (Sequence[DataSample]): N samples.
        num_classes (int, optional): Width of the multi-hot labels.
        multi_label (bool): Whether a sample may have several classes.
        device (torch.device): Where the labels are wanted.

    Returns:
        Tensor: Shape (N,), int64, -1 for unlabeled; if ``multi_label`` shape
        (N, num_classes), bool, all False for unlabeled.

    Raises:
        ValueError: If a sample has several labels without ``multi_label``, or
            a class of a multi-label sample is out of range.
    """
    labels = [
        sample.gt_label.flatten() if 'gt_label' in sample else None
        for sample in data_samples
    ]
    # All at once: from a GPU each copy would wait.
    found = [label for label in labels if label is not None]
    like = found[0] if found else torch.zeros(0)
    empty = like.new_zeros(0, dtype=torch.int64)
    labels = [empty if label is None else label for label in labels]
    if multi_label:
        return _multi_hot(labels, num_classes).to(device)
    unlabeled = empty.new_full((1,), UNLABELED)
    for sample, label in zip(data_samples, labels, strict=True):
        if len(label) > 1:
            raise ValueError(
                f'{_name(sample)} has {len(label)} labels, but UniMoCoHead '
                'expects one. For several classes an image set '
                'multi_label=True and num_classes in the head'
            )
    labels = [label if len(label) else unlabeled for label in labels]
    return torch.cat(labels).to(device)


def _multi_hot(labels: list[Tensor], num_classes: int) -> Tensor:
    counts = [len(label) for label in labels]
    rows = torch.arange(len(labels)).repeat_interleave(torch.tensor(counts))
    classes = torch.cat(labels)
    rows = rows.to(classes.device)
    if len(classes):
        low, high = torch.stack(classes.aminmax()).tolist()
        _check_range(low, high, UNLABELED, num_classes - 1)
    hot = classes.new_zeros(len(labels), num_classes + 1, dtype=torch.bool)
    # Unlabeled, -1, lands in a last column that is cut off.
    hot[rows, classes % (num_classes + 1)] = True
    return hot[:, :num_classes].contiguous()


def collect_indices(
    data_samples: Sequence[DataSample], device: torch.device | str = 'cpu'
) -> Tensor:
    """Collect an identity of each image, the same whenever it is drawn.

    Made of ``sample_idx`` and, since indices of concatenated data sets
    overlap, of ``img_path`` where the samples have one.

    Args:
        data_samples (Sequence[DataSample]): N samples.
        device (torch.device): Where the indices are wanted.

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
    return torch.tensor(identities).to(device)


def check_labels(
    labels: Tensor, num_classes: int | None, multi_label: bool
) -> tuple[Tensor, bool, bool]:
    """Check dtype and range of a batch's labels.

    The host waits for the device of the labels, so they are best checked on
    the CPU; all that it wants to know is fetched at once.

    Args:
        labels (Tensor): Shape (N,), integer; or multi-hot, integer or bool,
            shape (N, num_classes). At least one sample.
        num_classes (int, optional): Declared number of classes.
        multi_label (bool): Which of the two.

    Returns:
        tuple[Tensor, bool, bool]: The labels as int64 or, multi-hot, bool;
        whether any sample is labeled, and whether any is not.

    Raises:
        ValueError: If they are no integers or out of range.
    """
    if labels.is_floating_point():
        raise ValueError(f'labels must be integers, but got {labels.dtype}')
    labels = labels.long()
    if multi_label:
        fewest = labels.sum(dim=1).min()
        low, high, fewest = torch.stack([*labels.aminmax(), fewest]).tolist()
        _check_range(low, high, 0, 1)
        return labels.bool(), high > 0, fewest == 0
    low, high = torch.stack(labels.aminmax()).tolist()
    highest = None if num_classes is None else num_classes - 1
    _check_range(low, high, UNLABELED, highest)
    return labels, high > UNLABELED, low == UNLABELED


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


def _name(sample: DataSample) -> str:
    return f'image {sample.get("img_path", sample.get("sample_idx", "?"))}'
