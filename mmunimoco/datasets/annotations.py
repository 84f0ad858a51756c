"""Reading and removing the labels of mmengine datasets.

Below any wrappers (``ConcatDataset``, ``RepeatDataset``...) are the leaves:
datasets that store one annotation dict per sample. Labels are removed from a
copy of those annotations, so nothing that reads them later (a pipeline, a
replacement for a broken image, a subset, a worker process) can see them.
"""

import copy
import pickle
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset

from .wrapper import class_ids

# `gt_score` is the soft or one-hot form of the same label.
LABEL_KEYS = ('gt_label', 'gt_score')


class SampleTable(NamedTuple):
    """Labels and paths of the samples of all leaves, concatenated.

    Attributes:
        classes: (M,) int64, class ids of all samples, concatenated.
        offsets: (N + 1,) int64; the classes of sample i are
            ``classes[offsets[i]:offsets[i + 1]]``, none if it is unlabeled.
        paths: N strings, ``img_path`` of the annotation, or None.
        names: N strings, the path relative to the folder of the images, or,
            for a sample without path, its index in its leaf (``#17``).
    """

    classes: np.ndarray
    offsets: np.ndarray
    paths: list
    names: list

    @property
    def has_label(self) -> np.ndarray:
        """(N,) bool."""
        return np.diff(self.offsets) > 0

    def owners(self) -> np.ndarray:
        """(M,) int64, the sample of each entry of ``classes``."""
        return np.repeat(np.arange(len(self.paths)), np.diff(self.offsets))

    def strata(self) -> np.ndarray:
        """(N,) int64, the class each sample counts for, -1 if unlabeled.

        A sample of several classes counts for the rarest of them; among
        equally rare ones, for the smallest id.
        """
        strata = np.full(len(self.paths), -1, np.int64)
        if len(self.classes):
            sizes = np.bincount(self.classes)[self.classes]
            commonest_first = np.lexsort((self.classes, sizes))[::-1]
            # The last assignment to an index wins: the rarest class.
            owners = self.owners()[commonest_first]
            strata[owners] = self.classes[commonest_first]
        return strata


def find_leaves(dataset: Any) -> list[BaseDataset]:
    """Return the leaves of a tree of wrappers, each once, in order.

    Raises:
        TypeError: If something in the tree is neither a dataset of mmengine's
            kind nor a wrapper of one.
    """
    if isinstance(dataset, BaseDataset):
        return [dataset]
    children = children_of(dataset)
    if not children:
        raise TypeError(
            f"{type(dataset).__name__} is neither a subclass of mmengine's "
            'BaseDataset nor a wrapper with `dataset` or `datasets`; its '
            'labels cannot be read or removed'
        )
    leaves = (x for child in children for x in find_leaves(child))
    return list({id(leaf): leaf for leaf in leaves}.values())


def leaves_of(dataset: Any) -> list:
    """Return the datasets below any wrappers, of whatever kind, in order."""
    children = children_of(dataset)
    if not children:
        return [dataset]
    return [leaf for child in children for leaf in leaves_of(child)]


def children_of(dataset: Any) -> list:
    """Return the datasets directly below a wrapper, [] for others."""
    # mmengine's num_batch_per_epoch wraps in an object that has all attributes
    # of what is in it.
    inner = getattr(dataset, '__dict__', {}).get('_dataset')
    if inner is None and getattr(dataset, 'datasets', None) is not None:
        return list(dataset.datasets)
    if inner is None:
        inner = getattr(dataset, 'dataset', None)
    return [] if inner is None else [inner]


def replace_leaves(dataset: Any, replacements: dict[int, BaseDataset]) -> Any:
    """Copy a tree of wrappers with other leaves.

    Args:
        dataset: Leaf or wrapper.
        replacements: From ``id`` of a leaf to its replacement.
    """
    if id(dataset) in replacements:
        return replacements[id(dataset)]
    wrapper = copy.copy(dataset)
    children = [replace_leaves(c, replacements) for c in children_of(dataset)]
    if hasattr(dataset, 'datasets'):
        wrapper.datasets = children
    else:
        wrapper.dataset = children[0]
    return wrapper


def read_samples(leaves: Sequence[BaseDataset]) -> SampleTable:
    """Read the labels and paths of all samples of initialised leaves.

    Raises:
        ValueError: If a label is not a class id or a list of class ids.
    """
    classes, counts = array('q'), array('q')
    paths, names = [], []
    for leaf in leaves:
        prefix = (getattr(leaf, 'data_prefix', None) or {}).get('img_path')
        for index, info in enumerate(annotations_of(leaf)):
            ids = class_ids(info.get('gt_label'), leaf, index)
            classes.extend(ids)
            counts.append(len(ids))
            paths.append(info.get('img_path'))
            names.append(_name(paths[-1], prefix, index))
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return SampleTable(np.array(classes, np.int64), offsets, paths, names)


def _name(path: str | None, prefix: str | None, index: int) -> str:
    if not isinstance(path, str):
        return f'#{index}'
    path = path.replace('\\', '/')
    if not prefix:
        return path
    return path.removeprefix(prefix.replace('\\', '/').rstrip('/') + '/')


def _keeps_get_data_info(leaf: BaseDataset) -> bool:
    return type(leaf).get_data_info is BaseDataset.get_data_info


def annotations_of(leaf: BaseDataset) -> Iterator[dict]:
    """Yield the annotation of each sample; callers must not change it.

    Avoids ``get_data_info`` where possible: its deep copies would take most
    of the time over 1.28 million samples.
    """
    if not _keeps_get_data_info(leaf):
        yield from (leaf.get_data_info(i) for i in range(len(leaf)))
    elif leaf.serialize_data:
        yield from map(pickle.loads, _serialized(leaf))
    else:
        yield from leaf.data_list


def _serialized(leaf: BaseDataset) -> Iterator[memoryview]:
    view, start = memoryview(leaf.data_bytes), 0
    for end in leaf.data_address.tolist():
        yield view[start:end]
        start = end


def hide_labels(leaf: BaseDataset, hidden: np.ndarray) -> BaseDataset:
    """Copy a leaf and remove the labels of some of its samples.

    Pipeline, meta information and everything else are shared with ``leaf``,
    which is not changed.

    Args:
        leaf: Fully initialised dataset.
        hidden: (len(leaf),) bool.

    Raises:
        TypeError: If the dataset computes labels in ``get_data_info``.
    """
    if not hidden.any():
        return leaf
    other = copy.copy(leaf)
    if leaf.serialize_data:
        other.data_bytes, other.data_address = _rewrite(leaf, hidden)
    else:
        other.data_list = [
            _without_label(info) if hide else info
            for info, hide in zip(leaf.data_list, hidden, strict=True)
        ]
    if not _keeps_get_data_info(leaf):
        for i in np.flatnonzero(hidden).tolist():
            if any(key in other.get_data_info(i) for key in LABEL_KEYS):
                raise TypeError(
                    f'{type(leaf).__name__}.get_data_info returns labels that '
                    'are not in its annotations, so they cannot be removed; '
                    'put them into load_data_list'
                )
    return other


def _without_label(info: dict) -> dict:
    return {k: v for k, v in info.items() if k not in LABEL_KEYS}


def _rewrite(
    leaf: BaseDataset, hidden: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Serialize the annotations again; return ``data_bytes, data_address``."""
    data, ends = bytearray(), np.empty(len(hidden), np.int64)
    pairs = zip(_serialized(leaf), hidden.tolist(), strict=True)
    for i, (item, hide) in enumerate(pairs):
        if hide:
            item = pickle.dumps(_without_label(pickle.loads(item)), protocol=4)
        data += item
        ends[i] = len(data)
    return np.frombuffer(data, np.uint8), ends
