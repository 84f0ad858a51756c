"""Take the labels of most images away: semi-supervised pre-training."""

import copy
import logging
import math
import numbers

import numpy as np
from mmengine.dataset import force_full_init
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS

from mmunimoco.utils.config_errors import part_of_config

from .label_list import check_list_path, select_by_list
from .label_selection import sample_keys, select_by_ratio
from .leaf_datasets import (
    SampleTable,
    class_ids,
    find_leaves,
    hide_labels,
    read_samples,
    replace_leaves,
)
from .skip_broken import BrokenFiles


@DATASETS.register_module()
class PartialLabels:
    """A dataset of which only some images keep their label.

    All images stay; those that lose their label have no ``gt_label`` (nor
    ``gt_score``) in their annotation, so none reaches the pipeline, and their
    ``DataSample`` has none. Samples that have no label to begin with (no
    ``gt_label``, or -1) are let through and count for nothing.

    ``label_ratio`` is of the images that have a label. The choice

    - is balanced: each class keeps its exact share, rounded up or down, and
      the whole keeps ``round(ratio * N)``;
    - is nested: for one seed, a smaller ratio is part of a larger one;
    - depends on the seed and on the images' paths from their image folder
      (their position in the dataset where they come from no file), not on
      their order, the machine or any random state.

    A class whose share is below one image may be left without any label; a
    warning says how many are. An image of several classes counts for the
    rarest of them. Wrappers below (``RepeatDataset``...) repeat images, not
    choices: all copies of an image are labeled or none is.

    Args:
        dataset: Any dataset or wrapper of mmengine's kind, or its config. An
            instance given here keeps its own labels.
        label_ratio: In [0, 1].
        label_list: Text file that names the images that keep their label,
            see :mod:`mmunimoco.datasets.label_list`.
        seed: Of the choice by ratio.
        lazy_init: Read the annotations later, in ``full_init``.
        skip_broken: How many files may be broken. In the place of such an
            image comes the next one of the dataset that can be read, with its
            own label; ``BrokenImagesHook`` lists them. One more is an error,
            and so is the first by default.

    Raises:
        ValueError: Not exactly one of ratio and list; a ratio outside [0, 1];
            a ratio above 0 of images without any label; a list that is empty
            or does not fit the dataset.
        FileNotFoundError: No such list.
        TypeError: Arguments of a wrong type, or a dataset of another kind.
        BrokenImageError: When a sample is asked for: more broken files than
            ``skip_broken``.
    """

    def __init__(
        self,
        dataset,
        label_ratio: float | None = None,
        label_list: str | None = None,
        seed: int = 0,
        lazy_init: bool = False,
        skip_broken: int = 0,
    ):
        with part_of_config('dataset'):
            self._take_options(dataset, label_ratio, label_list, seed)
            self._files = BrokenFiles(skip_broken)
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def _take_options(self, dataset, label_ratio, label_list, seed) -> None:
        if (label_ratio is None) == (label_list is None):
            raise ValueError(
                'PartialLabels needs either label_ratio or label_list, and '
                f'None for the other; got label_ratio={label_ratio!r}, '
                f'label_list={label_list!r}'
            )
        self.label_ratio = check_ratio(label_ratio)
        self.label_list = (
            None if label_list is None else check_list_path(label_list)
        )
        if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
            raise TypeError(f'seed must be an integer, got {seed!r}')
        self.seed = int(seed)
        with part_of_config('dataset'):
            if isinstance(dataset, dict):
                dataset = DATASETS.build(dataset)
        self.dataset = dataset
        if not hasattr(self.dataset, 'full_init'):
            raise TypeError(
                'dataset must be a dataset of mmengine or mmpretrain or its '
                f'config, got {type(dataset).__name__}'
            )

    def full_init(self) -> None:
        """Read the annotations and take the labels away."""
        if self._fully_initialized:
            return
        with part_of_config('dataset'):
            with part_of_config('dataset'):
                self.dataset.full_init()
            self._hide_labels()
        self._fully_initialized = True

    def _hide_labels(self) -> None:
        leaves = find_leaves(self.dataset)
        table = read_samples(leaves)
        keep = self._select(table)
        cuts = np.cumsum([len(leaf) for leaf in leaves])[:-1]
        self.dataset = replace_leaves(
            self.dataset,
            {
                id(leaf): hide_labels(leaf, hidden)
                for leaf, hidden in zip(
                    leaves, np.split(~keep, cuts), strict=True
                )
            },
        )
        kept = table.classes[keep[table.owners()]]
        self.highest_label = int(kept.max()) if len(kept) else None
        _report(table, keep)

    def _select(self, table: SampleTable) -> np.ndarray:
        if self.label_list is not None:
            return select_by_list(table, self.label_list)
        if self.label_ratio > 0 and not table.has_label.any():
            raise ValueError(
                f'label_ratio is {self.label_ratio}, but none of the '
                f'{len(table.paths)} images has a label; give the dataset '
                'labels (with_label=True), or set label_ratio=0.0'
            )
        keys = sample_keys(table.names, self.seed)
        return select_by_ratio(table.strata(), keys, self.label_ratio)

    @property
    def metainfo(self) -> dict:
        """A copy of the meta information of the dataset below."""
        return copy.deepcopy(self.dataset.metainfo)

    @property
    def CLASSES(self):
        """Names of the classes, or None."""
        return self.dataset.metainfo.get('classes')

    @property
    def class_to_idx(self) -> dict:
        """Class name to class id."""
        return {name: i for i, name in enumerate(self.CLASSES)}

    @property
    def test_mode(self) -> bool:
        """Of the dataset below; False where that has none."""
        return getattr(self.dataset, 'test_mode', False)

    @force_full_init
    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def skip_broken(self) -> int:
        """How many files may be broken."""
        return self._files.limit

    @force_full_init
    def __getitem__(self, idx: int):
        return self._files.load(self.dataset, idx)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """The annotation of a sample, without ``gt_label`` if unlabeled."""
        return self.dataset.get_data_info(idx)

    @force_full_init
    def get_cat_ids(self, idx: int) -> list:
        """Class ids of a sample, [] if unlabeled."""
        return class_ids(self.get_data_info(idx).get('gt_label'), self, idx)

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """(N,) int64, -1 for unlabeled samples.

        Raises:
            TypeError: A sample has several classes; see ``get_cat_ids``.
        """
        ids = [self.get_cat_ids(i) for i in range(len(self))]
        if any(len(classes) > 1 for classes in ids):
            raise TypeError(
                'samples have several classes; ask get_cat_ids for each'
            )
        return np.array([c[0] if c else -1 for c in ids], np.int64)

    @force_full_init
    def get_subset(self, indices) -> 'PartialLabels':
        """A part of the dataset; every sample keeps its state of labels.

        Args:
            indices: As in mmengine's ``BaseDataset.get_subset``: the first n,
                the last -n, or a sequence of indices.
        """
        subset = copy.copy(self)
        subset.dataset = self.dataset.get_subset(indices)
        return subset

    @force_full_init
    def get_subset_(self, indices) -> None:
        """The same in place."""
        self.dataset = self.dataset.get_subset(indices)

    def __repr__(self) -> str:
        choice = (
            f'label_ratio={self.label_ratio}, seed={self.seed}'
            if self.label_list is None
            else f'label_list={self.label_list!r}'
        )
        if self.skip_broken:
            choice += f', skip_broken={self.skip_broken}'
        return f'PartialLabels({choice}) of\n{self.dataset!r}'


def check_ratio(ratio) -> float | None:
    """The ratio as a float, None for None.

    Raises:
        TypeError: No number.
        ValueError: Not in [0, 1], or not a number (nan).
    """
    if ratio is None:
        return None
    if not isinstance(ratio, numbers.Real) or isinstance(ratio, bool):
        raise TypeError(f'label_ratio must be a number, got {ratio!r}')
    if math.isnan(ratio) or not 0 <= ratio <= 1:
        raise ValueError(f'label_ratio must be in [0, 1], got {ratio}')
    return float(ratio)


def _report(table: SampleTable, keep: np.ndarray) -> None:
    """Say how many labels stay; warn of classes that have none left."""
    had = table.has_label
    owners_kept = keep[table.owners()]
    before = len(np.unique(table.classes))
    after = len(np.unique(table.classes[owners_kept]))
    share = 100 * keep.sum() / max(had.sum(), 1)
    text = (
        f'PartialLabels: {keep.sum()} of {had.sum()} images ({share:.1f} %) '
        f'of {after} of {before} classes keep their label'
    )
    if not had.all():
        text += f'; {(~had).sum()} more images had none'
    print_log(text, logger='current')
    if 0 < after < before:
        print_log(
            f'PartialLabels: {before - after} of {before} classes have no '
            'labeled image; a higher ratio or another list would give them '
            'some',
            logger='current',
            level=logging.WARNING,
        )
