"""Compare what the class ids of datasets mean, by the names of the classes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmunimoco.utils.checkpoint import shorten

from .annotations import annotations_of, leaves_of
from .wrapper import class_ids

_FOLDERS = (
    'CustomDataset numbers the folders that it finds, whatever classes=[...] '
    'says. Make them the same everywhere, with an empty folder for a class '
    'without images; or list the images and their ids in an ann_file and give '
    'classes=[...] in the order of the ids.'
)
# Of mmpretrain, mmdet and mmseg.
_OTHER_LABELS = ('gt_score', 'instances', 'seg_map_path')


def check_classes_agree(datasets: Mapping[str, Any]) -> None:
    """Refuse datasets of which the same class id means different classes.

    ``CustomDataset`` numbers the folders that it finds: where the folder
    ``bee`` is missing, ``cat`` gets the id that ``bee`` has elsewhere.
    Wrappers are followed to every dataset below, so the parts of a
    ``ConcatDataset`` are compared too. Datasets without class names or
    without labels are free. A warning tells of classes that only one of two
    datasets has, if that does not change the ids of the others.

    Args:
        datasets (Mapping[str, Any]): Initialised datasets, or only the names
            of their classes (a sequence of strings), by the field of the
            config.

    Raises:
        ValueError: Shows both lists.
    """
    known = [x for name, one in datasets.items() for x in _read(name, one)]
    for one, other in combinations(known, 2):
        if not one.agrees_with(other):
            # The annotations are read only where names differ.
            if one.has_labels() and other.has_labels():
                raise ValueError(_difference(one, other))
        elif one.place != other.place:
            _warn_of_more(one, other)
            _warn_of_more(other, one)


@dataclass
class _ClassNames:
    """Class names in one place of the config, and the datasets with them."""

    place: str
    names: tuple
    folders: tuple  # in the order of the ids, if folders were numbered
    leaves: list = field(default_factory=list)

    def agrees_with(self, other: '_ClassNames') -> bool:
        """Whether each id that both have means the same.

        The same folders may have other names in each: mmpretrain's ImageNet
        shows words for them.
        """
        by_folder = self.folders and other.folders
        return _same(self.names, other.names) or bool(
            by_folder and _same(self.folders, other.folders)
        )

    def has_labels(self) -> bool:
        return not self.leaves or any(map(_is_labeled, self.leaves))

    def __str__(self) -> str:
        return _numbered(self.names)


def _read(place: str, dataset: Any) -> list[_ClassNames]:
    """The different class names of the datasets below."""
    if isinstance(dataset, list | tuple):
        return [_ClassNames(place, tuple(dataset), ())] if dataset else []
    found: dict[tuple, _ClassNames] = {}
    for leaf in leaves_of(dataset):
        names = (getattr(leaf, 'metainfo', None) or {}).get('classes')
        if names is None:
            continue
        names = tuple(names)
        folders = tuple(getattr(leaf, 'folder_to_idx', None) or ())
        if set(folders) & set(names) and not _same(folders, names):
            raise ValueError(_renamed(place, folders, names))
        known = _ClassNames(place, names, folders)
        found.setdefault((names, folders), known).leaves.append(leaf)
    return list(found.values())


def _is_labeled(leaf: Any) -> bool:
    if not isinstance(leaf, BaseDataset):
        return True  # unknown
    return any(
        class_ids(info.get('gt_label'), leaf, index)
        or any(key in info for key in _OTHER_LABELS)
        for index, info in enumerate(annotations_of(leaf))
    )


def _same(names: Sequence[str], others: Sequence[str]) -> bool:
    return all(a == b for a, b in zip(names, others, strict=False))


def _numbered(names: Sequence[str]) -> str:
    return shorten([f'{i}={name}' for i, name in enumerate(names)])


def _renamed(place: str, folders: tuple, names: tuple) -> str:
    return (
        f'{place} has the folders {_numbered(folders)}, but '
        f'classes={_numbered(names)}, another order. {_FOLDERS}'
    )


def _difference(one: _ClassNames, other: _ClassNames) -> str:
    pairs = enumerate(zip(one.names, other.names, strict=False))
    index, (name, other_name) = next(x for x in pairs if x[1][0] != x[1][1])
    fix = 'Give both the same classes=[...], in the order of the ids.'
    if one.folders or other.folders:
        fix = _FOLDERS
    return (
        f'class {index} is {name!r} in {one.place} and {other_name!r} in '
        f'{other.place}{" too" if one.place == other.place else ""}, so ids '
        'do not mean the same.\n'
        f'    {one.place} has {len(one.names)} classes: {one}\n'
        f'    {other.place} has {len(other.names)} classes: {other}\n'
        f'    {fix}'
    )


def _warn_of_more(one: _ClassNames, other: _ClassNames) -> None:
    more = one.names[len(other.names) :]
    if more:
        print_log(
            f'{one.place} has {len(more)} classes that {other.place} does not '
            f'have: {shorten([*map(str, more)])}.',
            logger='current',
            level=logging.WARNING,
        )
