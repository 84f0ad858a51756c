"""Label lists: text files that name the labeled images, one a line.

The form in which SimCLR and UniMoCo publish their subsets of ImageNet: base
names such as ``n01440764_10026.JPEG``. Where base names repeat, a path from
the image folder tells them apart (``cat/001.png``).
"""

import os
import os.path as osp
from collections import Counter
from collections.abc import Sequence

import numpy as np
from mmengine import fileio

from .label_selection import sample_keys, select_by_ratio
from .leaf_datasets import SampleTable, find_leaves, read_samples

_SHOWN = 3


def check_list_path(path) -> str:
    """The path as a string with ``~`` expanded.

    Raises:
        ValueError: An empty path.
        TypeError: No path at all.
        FileNotFoundError: No such file (or a folder).
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f'label_list must be the path of a text file, got {path!r}'
        )
    path = osp.expanduser(os.fspath(path))
    if not path.strip():
        raise ValueError(
            'label_list is an empty path; name a file, or give '
            'label_ratio=0.0 for no labels and 1.0 for all of them'
        )
    if not fileio.isfile(path):
        raise FileNotFoundError(f'label_list {path!r} is not a file')
    return path


def read_label_list(path) -> list:
    """Read the names in a list.

    Windows line ends, a byte order mark, blank lines and blanks around names
    are let through.

    Raises:
        ValueError: No name in it, a name twice, or not a text file.
        FileNotFoundError: No such file.
    """
    path = check_list_path(path)
    try:
        lines = fileio.list_from_file(path, encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(
            f'label_list {path!r} is no UTF-8 text: {error}'
        ) from error
    names = [line.strip().replace('\\', '/') for line in lines]
    names = [name for name in names if name]
    if not names:
        raise ValueError(
            f'label_list {path!r} names no image; for no labels at all give '
            'label_ratio=0.0'
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f'label_list {path!r} names {_some(twice)} more than once'
        )
    return names


def _some(names: Sequence[str]) -> str:
    shown = ', '.join(map(repr, names[:_SHOWN]))
    more = len(names) - _SHOWN
    return f'{shown} and {more} more' if more > 0 else shown


def select_by_list(table: SampleTable, path) -> np.ndarray:
    """Find the listed images in a dataset.

    An entry without folder is a base name. One with folders is the path from
    the image folder, or else the end of a path; with a leading ``./`` only
    the former; with a leading ``/`` the whole path.

    Args:
        table: The samples.
        path: Of the list.

    Returns:
        (N,) bool, True for the listed samples.

    Raises:
        ValueError: Samples have no names; a listed image is not there, or
            there more than once, or has no label to keep.
        FileNotFoundError: No such list.
    """
    entries = read_label_list(path)
    candidates = _samples_by_base_name(table, entries)
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
            files = [table.paths[i] for i in hits]
            raise ValueError(
                f'label_list {str(path)!r} names {entry!r}, but there is '
                f'more than one in the dataset: {_some(files)}; write the '
                'path from the image folder instead'
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
    if unknown:
        raise ValueError(
            f'{len(unknown)} of {len(entries)} names in label_list '
            f'{str(path)!r} are not in the dataset: {_some(unknown)}'
        )
    bare = [table.paths[i] for i in np.flatnonzero(keep & ~table.has_label)]
    if bare:
        raise ValueError(
            f'{len(bare)} of {len(entries)} images in label_list '
            f'{str(path)!r} have no label in the dataset: {_some(bare)}'
        )
    return keep


def _samples_by_base_name(table: SampleTable, entries) -> dict:
    """Indices of the samples whose base name is that of an entry."""
    found = {osp.basename(entry): [] for entry in entries}
    for i, name in enumerate(table.names):
        base = name.rpartition('/')[2]
        if base in found and table.paths[i] is not None:
            found[base].append(i)
    return found


def _resolve(entry: str, candidates: list, table: SampleTable) -> list:
    if '/' not in entry:
        return candidates
    if entry.startswith('/') or ':' in entry.partition('/')[0]:
        whole = osp.normpath(entry)
        return [
            i
            for i in candidates
            if whole in (table.paths[i], osp.abspath(table.paths[i]))
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


def make_label_list(dataset, label_ratio: float, seed: int = 0) -> list:
    """Names of the images that ``PartialLabels`` would leave labeled.

    Args:
        dataset: Fully initialised dataset with all its labels.
        label_ratio: As in ``PartialLabels``.
        seed: As in ``PartialLabels``.

    Returns:
        list[str]: In the order of the dataset; base names where those are
        unique in the dataset, else paths from the image folder.

    Raises:
        ValueError: Images without files, or of the same path from two image
            folders.
    """
    table = read_samples(find_leaves(dataset))
    keep = select_by_ratio(
        table.strata(), sample_keys(table.names, seed), label_ratio
    )
    kept = np.flatnonzero(keep)
    if any(table.paths[i] is None for i in kept):
        raise ValueError(
            'a label list needs images that come from files, but samples of '
            'this dataset have no `img_path`; use label_ratio itself'
        )
    whole = Counter(table.names)
    bases = Counter(name.rpartition('/')[2] for name in table.names)
    names = []
    for name in (table.names[i] for i in kept):
        if whole[name] > 1:
            raise ValueError(
                f'{name!r} is in the dataset more than once; no list can '
                'tell one from the other'
            )
        base = name.rpartition('/')[2]
        if bases[base] == 1:
            names.append(base)
        else:
            names.append(name if '/' in name else f'./{name}')
    return names


def write_label_list(path, names: Sequence[str], force: bool = False) -> None:
    """Write a list, one name a line, folders made as needed.

    Raises:
        FileExistsError: There is such a file and ``force`` is not set.
        ValueError: An empty path, or no names: a list of nothing would be
            refused when read.
    """
    if not str(path).strip():
        raise ValueError('the path of the label list is empty')
    if not names:
        raise ValueError('no image would keep its label: nothing to list')
    if osp.exists(path) and not force:
        raise FileExistsError(
            f'{str(path)!r} exists; it is overwritten only when forced'
        )
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
        file.writelines(f'{name}\n' for name in names)
