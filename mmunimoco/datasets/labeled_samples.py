"""Views of a dataset that treat its labeled samples apart."""

import numpy as np
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS


class _View:
    """A dataset whose samples come so many times, labeled ones and others."""

    def __init__(self, dataset, labeled_times: int, other_times: int) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        dataset.full_init()
        self.dataset = dataset
        labeled = [
            _has_label(dataset.get_data_info(index))
            for index in range(len(dataset))
        ]
        if not any(labeled):
            raise ValueError(
                f'none of the {len(dataset)} samples of '
                f'{type(dataset).__name__} has a label: give it a '
                'label_ratio above 0, a label_list, or a dataset with labels.'
            )
        self.num_labeled = sum(labeled)
        times = np.where(labeled, labeled_times, other_times)
        self.indices = np.repeat(np.arange(len(labeled)), times).tolist()

    @property
    def metainfo(self) -> dict:
        """Meta information of the dataset."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Nothing is left to do; mmengine calls it."""

    def get_data_info(self, idx: int) -> dict:
        """Annotation of a sample."""
        return self.dataset.get_data_info(self.indices[idx])

    def get_cat_ids(self, idx: int) -> list[int]:
        """Class ids of a sample, [] if unlabeled; for class balancing."""
        info = self.get_data_info(idx)
        if not _has_label(info):
            return []
        return np.atleast_1d(info['gt_label']).tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, idx: int) -> dict:
        return self.dataset[self.indices[idx]]


@DATASETS.register_module()
class LabeledSubset(_View):
    """The samples of a dataset that have a label, for fine-tuning on them.

    Around ``PartialLabels`` it leaves the share or the list of labeled
    images and drops the rest.

    Args:
        dataset (dict | Dataset): A dataset of mmengine's kind, or its config.

    Raises:
        ValueError: If no sample has a label.
    """

    def __init__(self, dataset) -> None:
        super().__init__(dataset, 1, 0)
        print_log(
            f'LabeledSubset keeps the {len(self)} labeled samples of '
            f'{len(self.dataset)}.',
            logger='current',
        )


@DATASETS.register_module()
class RepeatLabeled(_View):
    """A dataset whose labeled samples come several times an epoch.

    With a small share of labels few queries of a batch have positives beside
    their own key; repeating the labeled images raises their share of the
    batches and of the label queue. Unlabeled samples come once. An epoch gets
    longer accordingly.

    Args:
        dataset (dict | Dataset): A dataset of mmengine's kind, or its config,
            such as ``PartialLabels``.
        times (int): How often a labeled sample comes in an epoch; 1 changes
            nothing.

    Raises:
        ValueError: If ``times`` is no positive integer, or no sample has a
            label.
    """

    def __init__(self, dataset, times: int) -> None:
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise ValueError(
                'RepeatLabeled.times must be a positive integer, got '
                f'{times!r}'
            )
        super().__init__(dataset, times, 1)
        print_log(
            f'RepeatLabeled: {self.num_labeled} of {len(self.dataset)} '
            f'samples have a label and come {times} times, {len(self)} '
            'samples an epoch.',
            logger='current',
        )


def _has_label(info: dict) -> bool:
    """Whether an annotation has a class; -1 and [] mean none."""
    label = info.get('gt_label')
    if label is None:
        return False
    labels = np.atleast_1d(label)
    return labels.size > 0 and bool((labels >= 0).all())
