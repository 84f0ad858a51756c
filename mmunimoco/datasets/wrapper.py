"""What the dataset wrappers of this package have in common."""

import copy
import operator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from mmpretrain.registry import DATASETS

from mmunimoco.utils.config_errors import part_of_config


class DatasetWrapper:
    """Base of wrappers around a dataset of mmengine's kind.

    Forwards everything to the wrapped dataset; subclasses override what they
    change, and run their ``__init__`` in ``part_of_config('dataset')``, so
    that errors name the field of the config, however deep wrappers are nested.

    Args:
        dataset (dict | Dataset): The dataset to wrap, or its config.

    Raises:
        TypeError: If ``dataset`` has no ``full_init``.
    """

    def __init__(self, dataset: Any) -> None:
        with _field_of(dataset):
            if isinstance(dataset, dict):
                dataset = DATASETS.build(dataset)
        if not hasattr(dataset, 'full_init'):
            raise TypeError(
                'dataset must be a dataset of mmengine or mmpretrain or its '
                f'config, got {type(dataset).__name__}'
            )
        self.dataset = dataset

    def full_init(self) -> None:
        """Read the annotations of the wrapped dataset."""
        with _field_of(self.dataset):
            self.dataset.full_init()

    @property
    def metainfo(self) -> dict:
        """A copy of the meta information of the wrapped dataset."""
        return copy.deepcopy(self.dataset.metainfo)

    @property
    def CLASSES(self) -> tuple | None:
        """Class names, or None; read by mmpretrain's hooks."""
        return self.dataset.metainfo.get('classes')

    def get_data_info(self, idx: int) -> dict:
        """Return the annotation of a sample."""
        return self.dataset.get_data_info(idx)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the class ids of a sample, [] if it is unlabeled."""
        return class_ids(self.get_data_info(idx).get('gt_label'), self, idx)

    def get_gt_labels(self) -> np.ndarray:
        """Return the labels, (N,) int64, -1 for unlabeled samples.

        Raises:
            TypeError: If a sample has several classes; use ``get_cat_ids``.
        """
        ids = [self.get_cat_ids(i) for i in range(len(self))]
        if any(len(classes) > 1 for classes in ids):
            raise TypeError(
                'samples have several classes; use get_cat_ids(index) instead'
            )
        return np.array([c[0] if c else -1 for c in ids], np.int64)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> Any:
        return self.dataset[idx]


def _field_of(dataset: Any) -> AbstractContextManager:
    """Add ``dataset`` to the field of an error, unless a wrapper does."""
    kind = type(dataset)
    if isinstance(dataset, dict):
        name = dataset.get('type')
        kind = DATASETS.get(name) if isinstance(name, str) else name
    if isinstance(kind, type) and issubclass(kind, DatasetWrapper):
        return nullcontext()
    return part_of_config('dataset')


def class_ids(label: Any, dataset: Any = None, index: int = 0) -> list[int]:
    """Return the class ids of a ``gt_label``: [] for None, -1 and [].

    Args:
        label: None, an integer, or a sequence, array or tensor of integers.
        dataset: Named in the error message.
        index (int): Named in the error message.

    Raises:
        ValueError: If ``label`` is anything else, or an id is negative.
    """
    if type(label) is int and label >= 0:
        return [label]
    if label is None:
        return []
    if hasattr(label, 'tolist'):
        label = label.tolist()
    try:
        ids = [
            operator.index(item)
            for item in (label if isinstance(label, list | tuple) else [label])
        ]
    except TypeError:
        ids = [-2]
    if ids == [-1]:
        return []
    if any(i < 0 for i in ids):
        raise ValueError(
            f'sample {index} of {type(dataset).__name__} has gt_label '
            f'{label!r}: expected a class id (0 or more, -1 for unlabeled) or '
            'a list of class ids'
        )
    return sorted(set(ids))
