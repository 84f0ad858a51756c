"""Wrappers that drop unlabeled samples or repeat labeled ones."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS

from mmunimoco.utils.config_errors import part_of_config

from .wrapper import DatasetWrapper, class_ids


class _LabeledTimes(DatasetWrapper):
    """A dataset in which samples occur a given number of times.

    Args:
        dataset (dict | Dataset): A dataset of mmengine's kind, or its config.
        labeled_times (int): How often each labeled sample occurs.
        unlabeled_times (int): How often each unlabeled sample occurs.
    """

    def __init__(
        self, dataset: Any, labeled_times: int, unlabeled_times: int
    ) -> None:
        with part_of_config('dataset'):
            super().__init__(dataset)
            self.full_init()
            infos = map(self.dataset.get_data_info, range(len(self.dataset)))
            labeled = [
                bool(class_ids(info.get('gt_label'), self.dataset, i))
                for i, info in enumerate(infos)
            ]
            if not any(labeled):
                raise ValueError(
                    f'none of the {len(labeled)} samples of '
                    f'{type(self.dataset).__name__} has a label: set '
                    'label_ratio above 0, give a label_list, or use a labeled '
                    'dataset'
                )
        self.num_labeled = sum(labeled)
        times = np.where(labeled, labeled_times, unlabeled_times)
        self.indices = np.repeat(np.arange(len(labeled)), times).tolist()

    def get_data_info(self, idx: int) -> dict:
        """Return the annotation of a sample."""
        return self.dataset.get_data_info(self.indices[idx])

    def get_subset(self, indices: int | Sequence[int]) -> '_LabeledTimes':
        """Return a subset, as mmpretrain's ``KFoldDataset`` takes it.

        Args:
            indices (int | Sequence[int]): As in ``BaseDataset.get_subset`` of
                mmengine: the first n, the last -n, or a sequence of indices.
        """
        subset = copy.copy(self)
        if isinstance(indices, int):
            ends = slice(indices) if indices >= 0 else slice(indices, None)
            subset.indices = self.indices[ends]
        else:
            subset.indices = [self.indices[i] for i in indices]
        return subset

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, idx: int) -> Any:
        return self.dataset[self.indices[idx]]


@DATASETS.register_module()
class LabeledSubset(_LabeledTimes):
    """The labeled samples of a dataset, for fine-tuning on them.

    Around ``PartialLabels`` it keeps the images that are still labeled and
    drops the others.

    Args:
        dataset (dict | Dataset): A dataset of mmengine's kind, or its config.

    Raises:
        ValueError: If no sample has a label.
    """

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset, labeled_times=1, unlabeled_times=0)
        print_log(
            f'LabeledSubset: kept the {len(self)} labeled of '
            f'{len(self.dataset)} samples',
            logger='current',
        )


@DATASETS.register_module()
class RepeatLabeled(_LabeledTimes):
    """A dataset whose labeled samples occur several times per epoch.

    With few labels, few queries of a batch have positives besides their own
    key; repeating labeled images raises their share of the batches and of the
    label queue. Unlabeled samples occur once. Epochs get longer accordingly.

    Args:
        dataset (dict | Dataset): A dataset of mmengine's kind, or its config,
            such as ``PartialLabels``.
        times (int): How often a labeled sample occurs per epoch.

    Raises:
        ValueError: If ``times`` is not a positive integer, or no sample has a
            label.
    """

    def __init__(self, dataset: Any, times: int) -> None:
        is_integer = isinstance(times, int) and not isinstance(times, bool)
        with part_of_config('dataset'):
            if not is_integer or times < 1:
                raise ValueError(
                    'RepeatLabeled.times must be a positive integer, got '
                    f'{times!r}'
                )
        super().__init__(dataset, labeled_times=times, unlabeled_times=1)
        print_log(
            f'RepeatLabeled: {self.num_labeled} of {len(self.dataset)} '
            f'samples are labeled and occur {times} times: {len(self)} '
            'samples per epoch',
            logger='current',
        )
