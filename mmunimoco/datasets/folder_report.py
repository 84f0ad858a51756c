"""Say which files of an image folder a dataset leaves out."""

import os
import os.path as osp
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

# OpenCV reads them; mmpretrain's CustomDataset does not by default.
_READABLE = {'.webp', '.tiff', '.gif', '.jfif', '.jpe', '.jp2', '.dib'}
_READABLE |= {'.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif'}
_OTHER_IMAGES = {'.avif', '.heic', '.heif', '.jxl', '.dng', '.cr2', '.nef'}
# Folders of a whole data set, which are no classes.
TRAIN_FOLDERS = ('train', 'training')
VAL_FOLDERS = ('val', 'valid', 'validation', 'test')
_SPLITS = {*TRAIN_FOLDERS, *VAL_FOLDERS, 'images'}


def number_folders(folders: Iterable[str]) -> dict[str, int]:
    """Class ids of folders, in alphabetical order; -1 for ``unlabeled``.

    That is a class for mmpretrain, but not for our commands.
    """
    ids = dict.fromkeys(sorted(set(folders)), -1)
    classes = [folder for folder in ids if not _is_unlabeled(folder)]
    return ids | {folder: i for i, folder in enumerate(classes)}


def _is_unlabeled(folder: str) -> bool:
    return osp.basename(folder).lower() in ('unlabeled', 'unlabelled')


def describe_folder(leaf: Any) -> str | None:
    """Say what looks wrong in the folder of a ``CustomDataset``.

    It leaves out images outside of class folders and those of unknown
    extensions, and takes any sub-folder for a class. Datasets that read a
    list, remote folders, and data sets with classes of their own (ImageNet)
    are not looked at.

    Args:
        leaf: An initialised dataset without wrappers.

    Returns:
        str | None: How many files were found, used and skipped, and what to
        change; None if no image is skipped and there are classes.
    """
    if not _reads_folder(leaf) or not osp.isdir(leaf.img_prefix):
        return None
    root = leaf.img_prefix
    used, skipped, outside = _count(leaf, root)
    images = _READABLE | _OTHER_IMAGES
    unread = sorted(skipped.keys() & images)
    advice = []
    if outside:
        advice.append(
            'Only images in class folders have a label: to train on all of '
            'them without labels, set with_label=False.'
        )
    readable = [x for x in unread if x in _READABLE]
    if readable:
        names = ', '.join(map(repr, sorted({*leaf.extensions, *readable})))
        advice.append(f'To read all of them, set extensions=({names}).')
    if len(readable) < len(unread):
        other = ', '.join(x for x in unread if x not in readable)
        advice.append(f'Convert {other}, which OpenCV may not read.')
    advice += _doubts_of_classes(leaf)
    if not advice:
        return None
    left_out = [f'{n} {x} outside of class folders' for x, n in _most(outside)]
    left_out += [f'{n} {x}' for x, n in _most(skipped)]
    counts = [c.total() for c in (used, skipped + outside)]
    text = f'{root}: {sum(counts)} files found, {counts[0]} used'
    if used:
        text += f' ({", ".join(f"{n} {x}" for x, n in _most(used))})'
    text += f', {counts[1]} skipped'
    if left_out:
        text += f' ({", ".join(left_out)})'
    return '. '.join((text, ' '.join(advice)))


def _reads_folder(leaf: Any) -> bool:
    defaults = getattr(type(leaf), 'METAINFO', None) or {}
    return (
        hasattr(leaf, 'is_valid_file')
        and hasattr(leaf, 'with_label')
        and not getattr(leaf, 'ann_file', None)
        and not defaults.get('classes')
    )


def _count(leaf: Any, root: str) -> tuple[Counter, Counter, Counter]:
    """Files that are used, skipped, and images outside of class folders."""
    used, skipped, outside = Counter(), Counter(), Counter()
    for name, at_top in _files(root):
        extension = osp.splitext(name)[1].lower() or 'without extension'
        if not leaf.is_valid_file(name):
            skipped[extension] += 1
        elif at_top and leaf.with_label:
            outside[extension] += 1
        else:
            used[extension] += 1
    return used, skipped, outside


def _files(root: str) -> Iterator[tuple[str, bool]]:
    """Names of visible files, as mmengine lists them, and if at the top."""
    for parent, _, names in os.walk(root, followlinks=True):
        for name in names:
            if not name.startswith('.'):
                yield name, parent == root


def _doubts_of_classes(leaf: Any) -> list[str]:
    """What makes the sub-folders look like something else than classes."""
    names = list(getattr(leaf, 'folder_to_idx', None) or ())
    if not leaf.with_label or not names:
        return []
    if len(names) == 1:
        return [
            f'The only class is {names[0]!r}, so labels say nothing: for '
            'images without labels set with_label=False, otherwise set '
            'data_prefix to the folder of the class folders.'
        ]
    unlabeled = [x for x in names if _is_unlabeled(x)]
    if unlabeled:
        return [
            f'The folder {unlabeled[0]} counts as a class: move it out of '
            f'{leaf.img_prefix} and add it as a dataset of its own, with '
            'with_label=False (docs/own_data.md).'
        ]
    wrong = [x for x in names if x.startswith('.') or x.lower() in _SPLITS]
    if wrong:
        return [
            f'The folders {", ".join(wrong)} count as classes: is data_prefix '
            'the folder of the class folders?'
        ]
    return []


def _most(counts: Counter) -> list[tuple[str, int]]:
    # Equal counts by name: the order of files in a folder is arbitrary.
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:6]
