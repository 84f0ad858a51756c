"""Reading and removing the labels that mmengine's datasets hold.

Below any wrapper (``ConcatDataset``, ``RepeatDataset``...) lie leaves, the
datasets that hold one annotation dict a sample. Labels are removed there, in
a copy of the annotations themselves: whatever reads them later, a pipeline, a
second try for a broken image, a subset, a worker process, cannot see them.
"""

import copy
import operator
import pickle
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset

# `gt_score` is the soft or one-hot form of the same label.
LABEL_KEYS = ('gt_label', 'gt_score')
_BLOCK = 1 << 16


class SampleTable(NamedTuple):
    """What is known of the samples of one or several leaves, end to end.

    Attributes:
        classes: (M,) int64, class ids of all samples, end to end.
        offsets: (N + 1,) int64; sample i has classes[offsets[i]:
            offsets[i + 1]], none where it has no label.
        paths: N strings, ``img_path`` as in the annotation, or None.
        names: N strings, the same relative to the folder of the images; for
            a sample without path, its index in its leaf (``#17``).
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
        """(M,) int64, the sample that each entry of ``classes`` is of."""
        return np.repeat(np.arange(len(self.paths)), np.diff(self.offsets))

    def strata(self) -> np.ndarray:
        """(N,) int64, the class that each sample counts for, -1 for none.

        A sample of several classes counts for the rarest of them (of equally
        rare ones the first id).
        """
        strata = np.full(len(self.paths), -1, np.int64)
        if len(self.classes):
            sizes = np.bincount(self.classes)[self.classes]
            commonest_first = np.lexsort((self.classes, sizes))[::-1]
            # Of repeated indices the last assignment stays: the rarest.
            owners = self.owners()[commonest_first]
            strata[owners] = self.classes[commonest_first]
        return strata


def find_leaves(dataset) -> list:
    """The leaves below a dataset, each once, from first to last.

    Raises:
        TypeError: Neither a dataset of mmengine's kind nor a wrapper of one.
    """
    if isinstance(dataset, BaseDataset):
        return [dataset]
    leaves = []
    for child in _children(dataset):
        leaves += [
            leaf
            for leaf in find_leaves(child)
            if all(leaf is not known for known in leaves)
        ]
    return leaves


def _children(dataset) -> Sequence:
    if hasattr(dataset, 'datasets'):
        return dataset.datasets
    if hasattr(dataset, 'dataset'):
        return [dataset.dataset]
    raise TypeError(
        f'{type(dataset).__name__} is neither a subclass of '
        "mmengine's BaseDataset nor a wrapper with `dataset` or `datasets`; "
        'its labels cannot be taken away'
    )


def replace_leaves(dataset, replacements: dict):
    """A copy of a wrapper tree over other leaves; nothing else is copied.

    Args:
        dataset: Leaf or wrapper.
        replacements: ``id`` of a leaf to its replacement.
    """
    if id(dataset) in replacements:
        return replacements[id(dataset)]
    wrapper = copy.copy(dataset)
    children = [replace_leaves(c, replacements) for c in _children(dataset)]
    if hasattr(dataset, 'datasets'):
        wrapper.datasets = children
    else:
        wrapper.dataset = children[0]
    return wrapper


def read_samples(leaves: Sequence[BaseDataset]) -> SampleTable:
    """Read labels and paths of all samples; leaves must be initialised.

    Raises:
        ValueError: A label that is no class id or list of class ids.
    """
    classes, counts = array('q'), array('q')
    paths, names = [], []
    for leaf in leaves:
        prefix = (getattr(leaf, 'data_prefix', None) or {}).get('img_path')
        for index, info in enumerate(_annotations(leaf)):
            ids = class_ids(info.get('gt_label'), leaf, index)
            classes.extend(ids)
            counts.append(len(ids))
            path = info.get('img_path')
            paths.append(path)
            names.append(_name(path, prefix, index))
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return SampleTable(np.array(classes, np.int64), offsets, paths, names)


def _name(path, prefix, index) -> str:
    if not isinstance(path, str):
        return f'#{index}'
    path = path.replace('\\', '/')
    if prefix:
        prefix = prefix.replace('\\', '/').rstrip('/') + '/'
        if path.startswith(prefix):
            return path[len(prefix) :]
    return path


def class_ids(label, leaf=None, index: int = 0) -> list:
    """Class ids of an annotation's ``gt_label``: [] for None, -1 and [].

    Args:
        label: None, an integer, or a sequence, array or tensor of integers.
        leaf: Named in the error.
        index: Named in the error.

    Raises:
        ValueError: Anything else, or an id below -1.
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
            f'sample {index} of {type(leaf).__name__} has gt_label {label!r}: '
            'a class id (from 0, or -1 for none) or a list of ids is needed'
        )
    return sorted(set(ids))


def _reads_annotations_alone(leaf) -> bool:
    return type(leaf).get_data_info is BaseDataset.get_data_info


def _annotations(leaf: BaseDataset) -> Iterator[dict]:
    """Each sample's annotation, to be read only.

    ``get_data_info`` copies or checks what is not needed here; over 1.28
    million samples that is most of the time.
    """
    if not _reads_annotations_alone(leaf):
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


def _without_label(info: dict) -> dict:
    return {k: v for k, v in info.items() if k not in LABEL_KEYS}


def hide_labels(leaf: BaseDataset, hidden: np.ndarray) -> BaseDataset:
    """A copy of ``leaf`` whose hidden samples have no label any more.

    Pipeline, meta information and the rest are shared with ``leaf``, which
    stays as it is.

    Args:
        leaf: Fully initialised.
        hidden: (len(leaf),) bool.

    Raises:
        TypeError: The dataset makes labels from something other than its
            annotations.
    """
    if not hidden.any():
        return leaf
    other = copy.copy(leaf)
    if leaf.serialize_data:
        other.data_bytes, other.data_address = _rewritten(leaf, hidden)
    else:
        other.data_list = [
            _without_label(info) if hide else info
            for info, hide in zip(leaf.data_list, hidden, strict=True)
        ]
    if not _reads_annotations_alone(leaf):
        for i in np.flatnonzero(hidden).tolist():
            if any(key in other.get_data_info(i) for key in LABEL_KEYS):
                raise TypeError(
                    f'{type(leaf).__name__}.get_data_info makes labels that '
                    'are not in its annotations; they cannot be taken away'
                )
    return other


def _rewritten(leaf, hidden) -> tuple:
    blocks, block, lengths = [], [], np.empty(len(hidden), np.int64)
    for i, (data, hide) in enumerate(
        zip(_serialized(leaf), hidden.tolist(), strict=True)
    ):
        if hide:
            data = pickle.dumps(_without_label(pickle.loads(data)), protocol=4)
        lengths[i] = len(data)
        block.append(data)
        if len(block) == _BLOCK:
            blocks.append(b''.join(block))
            block.clear()
    blocks.append(b''.join(block))
    data_bytes = np.concatenate(
        [np.frombuffer(part, dtype=np.uint8) for part in blocks]
    )
    return data_bytes, np.cumsum(lengths)
