"""Label lists: text files with the names of the labeled images, one per line.

The format in which SimCLR and UniMoCo publish their subsets of ImageNet: file
names such as ``n01440764_10026.JPEG``. Where file names are not unique, the
path from the image folder is given (``cat/001.png``).
"""

import os
import os.path as osp
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from mmunimoco.utils.atomic import write_atomic
from mmunimoco.utils.checkpoint import shorten
from mmunimoco.utils.config_errors import named_field

from .annotations import SampleTable, find_leaves, read_samples
from .folder_report import number_folders
from .label_selection import sample_keys, select_by_ratio

# Wrappers that hide labels, or drop or repeat labeled images. A list is made
# from all labels, with each image counted once.
_LABEL_WRAPPERS = ('PartialLabels', 'LabeledSubset', 'RepeatLabeled')


def check_list_path(path: Any) -> str:
    """Return the path of a list as a string, with ``~`` expanded.

    Raises:
        ValueError: If the path is empty.
        TypeError: If it is not a path.
        FileNotFoundError: If there is no such file.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f'label_list must be the path of a text file, got {path!r}'
        )
    path = osp.expanduser(os.fspath(path))
    if not path.strip():
        raise ValueError(
            'label_list is an empty path; give a file, or label_ratio=0.0 for '
            'no labels and 1.0 for all of them'
        )
    if not fileio.isfile(path):
        raise FileNotFoundError(f'label_list {path!r} is not a file')
    return path


def check_name(name: str, place: str | os.PathLike) -> None:
    """Refuse a name of an image that is another when a list is read.

    Args:
        name (str): The name.
        place (str | os.PathLike): Where the image is, for the message.

    Raises:
        ValueError: If it cannot stand in a list.
    """
    try:
        fits = name.encode() and name == name.strip() and '\n' not in name
    except UnicodeEncodeError:  # bytes that are not UTF-8
        fits = False
    if not fits or '\r' in name:
        raise ValueError(
            f'the name {ascii(name)} in {place} begins with a blank, or has a '
            'line break or bytes that are not UTF-8, which lists of images '
            'cannot have: rename it'
        )


def read_label_list(path: Any) -> list[str]:
    """Read the names in a list.

    Windows line ends, a byte order mark, blank lines and spaces around names
    are ignored.

    Raises:
        ValueError: If the list is empty, names an image twice, or is not a
            text file.
        FileNotFoundError: If there is no such file.
    """
    path = check_list_path(path)
    try:
        lines = fileio.list_from_file(path, encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(
            f'label_list {path!r} is not UTF-8 text: {error}'
        ) from error
    names = [line.strip().replace('\\', '/') for line in lines]
    names = [name for name in names if name]
    if not names:
        raise ValueError(
            f'label_list {path!r} names no image; for no labels at all set '
            'label_ratio=0.0'
        )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(
            f'label_list {path!r} names {_shorten(repeated)} more than once'
        )
    return names


def _shorten(names: Sequence[str]) -> str:
    return shorten([*map(repr, names)], 3)


def select_by_list(table: SampleTable, path: Any) -> np.ndarray:
    """Find the listed images in a dataset.

    An entry without folders is a file name. One with folders is the path from
    the image folder or, if there is none, the end of a path. With a leading
    ``./`` only the former is tried; with a leading ``/`` it is the full path.

    Args:
        table (SampleTable): The samples.
        path (str): Path of the list.

    Returns:
        np.ndarray: (N,) bool, True for the listed samples.

    Raises:
        ValueError: If the samples have no paths, or a listed image is
            missing, ambiguous, listed twice or unlabeled.
        FileNotFoundError: If there is no such list.
    """
    entries = read_label_list(path)
    candidates = _samples_by_file_name(table, entries)
    if all(p is None for p in table.paths):
        raise ValueError(
            'label_list needs images that come from files, but no sample of '
            'this dataset has an `img_path`; use label_ratio'
        )
    keep = np.zeros(len(table.paths), dtype=bool)
    unknown = []
    for entry in entries:
        hits = _resolve(entry, candidates[osp.basename(entry)], table)
        if len(hits) > 1:
            raise ValueError(
                f'label_list {str(path)!r} names {entry!r}, but there is more '
                'than one in the dataset: '
                f'{_shorten([table.paths[i] for i in hits])}; write the path '
                'from the image folder instead'
            )
        if not hits:
            unknown.append(entry)
        elif keep[hits[0]]:
            raise ValueError(
                f'label_list {str(path)!r} names {table.paths[hits[0]]!r} '
                f'more than once, the second time as {entry!r}'
            )
        else:
            keep[hits[0]] = True
    unlabeled = np.flatnonzero(keep & ~table.has_label)
    for names, problem in (
        (unknown, 'are not in the dataset'),
        ([table.paths[i] for i in unlabeled], 'have no label in the dataset'),
    ):
        if names:
            raise ValueError(
                f'{len(names)} of {len(entries)} images in label_list '
                f'{str(path)!r} {problem}: {_shorten(names)}'
            )
    return keep


def _samples_by_file_name(
    table: SampleTable, entries: Sequence[str]
) -> dict[str, list[int]]:
    """From the file name of each entry to the samples that have it."""
    found = {osp.basename(entry): [] for entry in entries}
    for i, name in enumerate(table.names):
        base = osp.basename(name)
        if base in found and table.paths[i] is not None:
            found[base].append(i)
    return found


def _resolve(
    entry: str, candidates: list[int], table: SampleTable
) -> list[int]:
    if '/' not in entry:
        return candidates
    if entry.startswith('/') or ':' in entry.partition('/')[0]:
        full = osp.normpath(entry)
        return [
            i
            for i in candidates
            if full in (table.paths[i], osp.abspath(table.paths[i]))
        ]
    relative = osp.normpath(entry).replace('\\', '/')
    exact = [i for i in candidates if table.names[i] == relative]
    if exact or entry.startswith('./'):
        return exact
    return [
        i
        for i in candidates
        if f'/{table.paths[i]}'.replace('\\', '/').endswith(f'/{relative}')
    ]


def make_label_list(
    dataset: Any, label_ratio: float, seed: int = 0
) -> list[str]:
    """Return the names of the images that ``PartialLabels`` keeps labeled.

    Args:
        dataset: Initialised dataset with all its labels.
        label_ratio (float): As in ``PartialLabels``.
        seed (int): As in ``PartialLabels``.

    Returns:
        list[str]: In the order of the dataset; file names if unique in the
        dataset, else paths from the image folder.

    Raises:
        ValueError: If images have no path, or two of them the same path
            relative to their image folders.
    """
    table = read_samples(find_leaves(dataset))
    keys = sample_keys(table.names, seed)
    kept = np.flatnonzero(select_by_ratio(table.strata(), keys, label_ratio))
    if any(table.paths[i] is None for i in kept):
        raise ValueError(
            'a label list needs images that come from files, but samples of '
            'this dataset have no `img_path`; use label_ratio itself'
        )
    full = Counter(table.names)
    bases = Counter(map(osp.basename, table.names))
    names = []
    for name in (table.names[i] for i in kept):
        if full[name] > 1:
            raise ValueError(
                f'{name!r} is in the dataset more than once; a list cannot '
                'tell the copies apart'
            )
        base = osp.basename(name)
        if bases[base] == 1:
            names.append(base)
        else:
            names.append(name if '/' in name else f'./{name}')
    return names


def write_label_list(
    path: str, names: Sequence[str], force: bool = False
) -> None:
    """Write a list atomically, one name per line, with folders as needed.

    Raises:
        FileExistsError: If the file exists and ``force`` is not set.
        ValueError: If the path is empty, a name cannot stand in a list, or
            there are no names: an empty list would be refused when read.
    """
    if not str(path).strip():
        raise ValueError('the path of the label list is empty')
    if not names:
        raise ValueError('no image would keep its label: nothing to list')
    if osp.exists(path) and not force:
        raise FileExistsError(f'{str(path)!r} exists and is not overwritten')
    for name in names:
        check_name(name, 'the dataset')
    write_atomic(Path(path), ''.join(f'{name}\n' for name in names))


class _ClassFolders(CustomDataset):
    """As mmpretrain's, but images in ``unlabeled/`` have no label."""

    def _find_samples(self) -> list[tuple[str, int]]:
        samples = super()._find_samples()
        folders = self._metainfo['classes']
        ids = number_folders(folders)
        self._metainfo['classes'] = tuple(x for x in folders if ids[x] >= 0)
        return [(path, ids[folders[index]]) for path, index in samples]


def dataset_from_folder(folder: str) -> CustomDataset:
    """Build the dataset of a folder with one sub-folder per class.

    Images in a sub-folder ``unlabeled`` are labeled -1.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it has no sub-folders, or these hold no images.
    """
    folder = osp.expanduser(folder)
    if not osp.isdir(folder):
        raise FileNotFoundError(f'{folder!r} is not a folder')
    if not any(entry.is_dir() for entry in os.scandir(folder)):
        raise ValueError(
            f'{folder!r} has no sub-folders; one per class is needed'
        )
    try:
        return _ClassFolders(data_prefix=folder)
    except RuntimeError as error:  # mmpretrain: no images found
        raise ValueError(str(error)) from error


def dataset_from_config(path: str, key: str, options: dict | None) -> Any:
    """Build the dataset of a config with all its labels.

    ``PartialLabels``, ``LabeledSubset`` and ``RepeatLabeled`` are left out,
    also below other wrappers.

    Args:
        path (str): Config file.
        key (str): Field of the config that holds the dataset.
        options (dict | None): Overrides, as for ``--cfg-options``.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If there is no dataset at ``key``, or it cannot be built.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'{path!r} is not a file')
    config = Config.fromfile(path)
    config.merge_from_dict(options or {})
    found = config
    for part in key.split('.'):
        found = found.get(part) if hasattr(found, 'get') else None
    if not isinstance(found, dict) or 'type' not in found:
        raise ValueError(f'{path!r} has no dataset at {key!r}')
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    with named_field(f'{key!r} in {path!r}'):
        dataset = DATASETS.build(_with_all_labels(found))
        dataset.full_init()
    return dataset


def _with_all_labels(config: dict) -> dict:
    """Copy the config of a dataset without wrappers that hide labels."""
    while str(config['type']).rpartition('.')[2] in _LABEL_WRAPPERS:
        config = config['dataset']
    config = dict(config)
    if 'dataset' in config:
        config['dataset'] = _with_all_labels(config['dataset'])
    if 'datasets' in config:
        config['datasets'] = [*map(_with_all_labels, config['datasets'])]
    return config
