"""Keep the labeled samples of a dataset alone."""

import numpy as np
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS


@DATASETS.register_module()
class LabeledSubset:
    """The samples of a dataset that have a label, for fine-tuning on them.

    Around ``PartialLabels`` it leaves the share or the list of labeled
    images and drops the rest.

    Args:
        dataset (dict | Dataset): A dataset of mmengine's kind, or its config.

    Raises:
        ValueError: If no sample has a label.
    """

    def __init__(self, dataset) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        dataset.full_init()
        self.dataset = dataset
        self.indices = [
            index
            for index in range(len(dataset))
            if _has_label(dataset.get_data_info(index))
        ]
        if not self.indices:
            raise ValueError(
                f'none of the {len(dataset)} samples of '
                f'{type(dataset).__name__} has a label: give it a '
                'label_ratio above 0, a label_list, or a dataset with labels.'
            )
        print_log(
            f'LabeledSubset keeps the {len(self)} labeled samples of '
            f'{len(dataset)}.',
            logger='current',
        )

    @property
    def metainfo(self) -> dict:
        """Meta information of the dataset."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Nothing is left to do; mmengine calls it."""

    def get_data_info(self, idx: int) -> dict:
        """Annotation of a kept sample."""
        return self.dataset.get_data_info(self.indices[idx])

    def get_cat_ids(self, idx: int) -> list[int]:
        """Class ids of a kept sample, for class-balanced wrappers."""
        return np.atleast_1d(self.get_data_info(idx)['gt_label']).tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, idx: int) -> dict:
        return self.dataset[self.indices[idx]]


def _has_label(info: dict) -> bool:
    """Whether an annotation has a class; -1 and [] mean none."""
    label = info.get('gt_label')
    if label is None:
        return False
    labels = np.atleast_1d(label)
    return labels.size > 0 and bool((labels >= 0).all())
