"""Semi-supervised pre-training: hide the labels of most images."""

import copy
import logging
import math
import numbers
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS

from mmunimoco.utils.config_errors import part_of_config

from .annotations import (
    SampleTable,
    find_leaves,
    hide_labels,
    read_samples,
    replace_leaves,
)
from .class_names import check_classes_agree
from .label_lists import check_list_path, select_by_list
from .label_selection import sample_keys, select_by_ratio
from .wrapper import DatasetWrapper


@DATASETS.register_module()
class PartialLabels(DatasetWrapper):
    """A dataset in which only some images keep their label.

    All images stay. Those that lose their label have neither ``gt_label`` nor
    ``gt_score`` in their annotation, so the pipeline never sees a label and
    their ``DataSample`` has none. Samples that are unlabeled to begin with
    (no ``gt_label``, or -1) are passed through and do not count.

    ``label_ratio`` refers to the labeled images. The selection

    - is class-balanced: each class keeps its exact share to within one image,
      and the total is ``round(ratio * N)``;
    - is nested: for one seed, the selection at a smaller ratio is a subset of
      the selection at a larger one;
    - depends only on the seed and on the images' paths relative to their
      image folder (their position in the dataset if they have no path, or
      the same one in two concatenated folders), not on their order, the
      machine or any random state.

    A class whose share is below one image may end up without labels; a
    warning says how many do. An image of several classes counts for the
    rarest of them. Wrappers below (``RepeatDataset``...) repeat images, not
    selections: either all copies of an image are labeled or none is.

    Args:
        dataset (dict | Dataset): Any dataset or wrapper of mmengine's kind,
            or its config. An instance that is passed in is not changed.
        label_ratio (float, optional): Share of the labels to keep, in [0, 1].
        label_list (str, optional): Text file with the names of the images
            that keep their label; see :mod:`mmunimoco.datasets.label_lists`.
        seed (int): Seed of the selection by ratio. Defaults to 0.

    Raises:
        ValueError: If not exactly one of ``label_ratio`` and ``label_list``
            is given, the ratio is outside [0, 1], no image has a label
            although the ratio is above 0, the list is empty or does not fit
            the dataset, or the labels of two parts of a ``ConcatDataset``
            mean different classes.
        FileNotFoundError: If the list does not exist.
        TypeError: If an argument has the wrong type, or the dataset is not of
            mmengine's kind.
    """

    def __init__(
        self,
        dataset: Any,
        label_ratio: float | None = None,
        label_list: str | None = None,
        seed: int = 0,
    ) -> None:
        with part_of_config('dataset'):
            if (label_ratio is None) == (label_list is None):
                raise ValueError(
                    'PartialLabels needs exactly one of label_ratio and '
                    'label_list, the other must be None; got '
                    f'label_ratio={label_ratio!r}, label_list={label_list!r}'
                )
            self.label_ratio = check_ratio(label_ratio)
            self.label_list = (
                None if label_list is None else check_list_path(label_list)
            )
            if isinstance(seed, bool) or not isinstance(
                seed, numbers.Integral
            ):
                raise TypeError(f'seed must be an integer, got {seed!r}')
            self.seed = int(seed)
            super().__init__(dataset)
            self.full_init()
            self._hide_labels()

    def _hide_labels(self) -> None:
        leaves = find_leaves(self.dataset)
        table = read_samples(leaves)
        keep = self._select(table)
        bounds = np.cumsum([len(leaf) for leaf in leaves])[:-1]
        hidden = np.split(~keep, bounds)
        replacements = {
            id(leaf): hide_labels(leaf, part)
            for leaf, part in zip(leaves, hidden, strict=True)
        }
        self.dataset = replace_leaves(self.dataset, replacements)
        check_classes_agree({'the dataset': self.dataset})
        kept = table.classes[keep[table.owners()]]
        self.highest_label = int(kept.max()) if len(kept) else None
        _log_selection(table, keep)

    def _select(self, table: SampleTable) -> np.ndarray:
        if self.label_list is not None:
            return select_by_list(table, self.label_list)
        if self.label_ratio > 0 and not table.has_label.any():
            raise ValueError(
                f'label_ratio is {self.label_ratio}, but none of the '
                f'{len(table.paths)} images has a label; load the labels '
                '(with_label=True), or set label_ratio=0.0'
            )
        keys = sample_keys(table.names, self.seed)
        return select_by_ratio(table.strata(), keys, self.label_ratio)

    def get_subset(self, indices: Any) -> 'PartialLabels':
        """Return a subset; every sample stays labeled or unlabeled.

        Args:
            indices (int | Sequence[int]): As in ``BaseDataset.get_subset`` of
                mmengine: the first n, the last -n, or a sequence of indices.
        """
        subset = copy.copy(self)
        subset.get_subset_(indices)
        return subset

    def get_subset_(self, indices: Any) -> None:
        """Reduce this dataset to a subset, see :meth:`get_subset`."""
        self.dataset = self.dataset.get_subset(indices)

    def __repr__(self) -> str:
        if self.label_list is None:
            options = f'label_ratio={self.label_ratio}, seed={self.seed}'
        else:
            options = f'label_list={self.label_list!r}'
        return f'PartialLabels({options}) of\n{self.dataset!r}'


def check_ratio(ratio: Any) -> float | None:
    """Return the ratio as a float, None for None.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is outside [0, 1] or nan.
    """
    if ratio is None:
        return None
    if not isinstance(ratio, numbers.Real) or isinstance(ratio, bool):
        raise TypeError(f'label_ratio must be a number, got {ratio!r}')
    if math.isnan(ratio) or not 0 <= ratio <= 1:
        raise ValueError(f'label_ratio must be in [0, 1], got {ratio}')
    return float(ratio)


def _log_selection(table: SampleTable, keep: np.ndarray) -> None:
    """Log how many labels were kept; warn of classes left without any."""
    had = table.has_label
    before = len(np.unique(table.classes))
    after = len(np.unique(table.classes[keep[table.owners()]]))
    percent = 100 * keep.sum() / max(had.sum(), 1)
    text = (
        f'PartialLabels: {keep.sum()} of {had.sum()} images ({percent:.1f} %) '
        f'of {after} of {before} classes keep their label'
    )
    if not had.all():
        text += f'; {(~had).sum()} more images are unlabeled in the dataset'
    print_log(text, logger='current')
    if 0 < after < before:
        print_log(
            f'PartialLabels: {before - after} of {before} classes have no '
            'labeled image; raise label_ratio or use another list to cover '
            'them',
            logger='current',
            level=logging.WARNING,
        )
