"""What is in a folder of images: files, classes, sizes."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
from rich.progress import track

from mmunimoco.datasets.decoding import (
    MAX_PIXELS,
    decode,
    min_reduction,
    read_header,
)
from mmunimoco.datasets.folder_report import (
    TRAIN_FOLDERS,
    VAL_FOLDERS,
    number_folders,
)
from mmunimoco.datasets.image_checks import BrokenImageError
from mmunimoco.datasets.label_lists import check_name, read_label_list
from mmunimoco.utils.versions import count_cores

UNLABELED = -1
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif')
EXTENSIONS += ('.tiff', '.webp')
# Images that are decoded to find damaged ones: all of a folder up to this
# size, else every n-th.
_MAX_DECODED = 20_000


@dataclass(frozen=True)
class ImageFolder:
    """Images of a folder.

    Attributes:
        root (Path): The folder.
        names (list[str]): Paths of the N images from there, with slashes.
        labels (list[int]): Class of each, -1 if it is unlabeled.
        classes (tuple[str]): Names of the classes.
        side (float): Median of the shorter side, in pixels.
        unreadable (list[str]): Files that do not decode, left out.
        others (Counter): Number of files of other kinds, by extension.
    """

    root: Path
    names: list[str]
    labels: list[int]
    classes: tuple[str, ...] = ()
    side: float = 0.0
    unreadable: list[str] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_labeled(self) -> int:
        """Number of images with a label."""
        return sum(label != UNLABELED for label in self.labels)

    def subset(self, indices: Sequence[int]) -> 'ImageFolder':
        """The folder with only some of its images, in the given order."""
        return replace(
            self,
            names=[self.names[i] for i in indices],
            labels=[self.labels[i] for i in indices],
        )


def find_splits(folder: Path) -> tuple[Path, Path | None]:
    """Return the folders of training and validation images.

    A folder ``train`` of images alone, beside others but no ``val``, is a
    class like those.

    Args:
        folder (Path): A folder of images, or one with ``train`` and perhaps
            ``val`` in it.

    Raises:
        NotADirectoryError: If it is not a folder.
        FileNotFoundError: If it does not exist.
    """
    _check_folder(folder)
    inside = _folders(folder)
    train, val = (
        next((inside[name] for name in names if name in inside), None)
        for names in (TRAIN_FOLDERS, VAL_FOLDERS)
    )
    if train is None:
        return folder, None
    is_class = val is None and len(inside) > 1 and not _folders(train)
    return (folder, None) if is_class else (train, val)


def is_split(folder: Path) -> bool:
    """Whether the classes are in ``train`` and perhaps ``val``."""
    return find_splits(folder)[0] != folder


def _folders(folder: Path) -> dict[str, Path]:
    """The sub-folders that are not hidden, by name in lower case."""
    return {
        path.name.lower(): path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith('.')
    }


def read_folder(root: Path, split: bool = False) -> ImageFolder:
    """List the images of a folder, and leave out those that do not decode.

    The first sub-folder in a path is the class of the image. Images beside
    the class folders, and those in a sub-folder ``unlabeled``, have none.

    Args:
        root (Path): The folder.
        split (bool): Whether classes are sub-folders of ``train``, ``val``
            and the like in it. Defaults to False.

    Raises:
        ValueError: If there is no image in it, or a name cannot stand in a
            list.
        NotADirectoryError: If it is not a folder.
        FileNotFoundError: If it does not exist.
    """
    _check_folder(root)
    names, others = _walk(root)
    for name in names:
        check_name(name, root)
    side, unreadable = _decode_all(root, names)
    unreadable_names = set(unreadable)
    names = [name for name in names if name not in unreadable_names]
    if not names:
        kinds = ', '.join(f'{n} {e}' for e, n in others.most_common(5))
        raise ValueError(
            f'there is no image in {root} ({", ".join(EXTENSIONS)})'
            + (f'; other files: {kinds}' if kinds else '')
            + (f'; {len(unreadable)} unreadable ones' if unreadable else '')
        )
    owners = [_class_of(name, split) for name in names]
    ids = number_folders(owners)
    classes = tuple(name for name in ids if ids[name] != UNLABELED)
    return ImageFolder(
        root,
        names,
        [ids[owner] for owner in owners],
        classes,
        side,
        unreadable,
        others,
    )


def keep_labels(folder: ImageFolder, path: Path) -> ImageFolder:
    """Apply a list of labels.

    Args:
        folder (ImageFolder): The images.
        path (Path): Text file with one image a line. Either a name alone, and
            only these images keep the label that their folder gives; or a
            name and its class, separated by a comma, tab or blank, and these
            are all labels there are; -1 is no class but means unlabeled.

    Returns:
        ImageFolder: With other labels.

    Raises:
        ValueError: If a line names no image of the folder or one twice, or
            gives no label where one is needed.
        FileNotFoundError: If there is no such file.
    """
    where = _places(folder.names)
    found: dict[int, str | None] = {}
    for line in _read_lines(path):
        name, label = _split_line(line, where)
        if name not in where:
            name, label = _split_line(_in_folder(line, folder.root), where)
        places = where.get(name, [])
        if len(places) != 1:
            fault = (
                'is in several folders; give its path'
                if places
                else f'is no image in {folder.root}; a line is a name, or a '
                'name and a class behind a comma, tab or blank'
            )
            raise ValueError(f'--labels {path}: {name!r} {fault}')
        if places[0] in found:
            raise ValueError(f'--labels {path}: {name!r} is there twice')
        if label == '':
            raise ValueError(
                f'--labels {path}: the class behind {name!r} is empty; leave '
                'out the lines of unlabeled images'
            )
        found[places[0]] = label
    return _relabel(folder, found, path)


def hold_out(
    folder: ImageFolder, share: float, seed: int = 0
) -> tuple[ImageFolder, ImageFolder]:
    """Take some labeled images of each class away, for validation.

    Args:
        folder (ImageFolder): The images.
        share (float): Of the labeled images of each class, in [0, 1); at
            least one of a class of three or more.
        seed (int): Of the choice. Defaults to 0.

    Returns:
        tuple[ImageFolder, ImageFolder]: The others, and those taken.
    """
    labels, taken = np.array(folder.labels), []
    rng = np.random.default_rng(seed)
    for label in range(len(folder.classes)):
        members = np.flatnonzero(labels == label)
        if share > 0 and len(members) >= 3:
            count = max(1, int(share * len(members)))
            taken.extend(rng.choice(members, count, replace=False).tolist())
    taken.sort()
    rest = np.setdiff1d(np.arange(len(folder)), taken).tolist()
    return folder.subset(rest), folder.subset(taken)


def _read_lines(path: Path) -> list[str]:
    try:
        return read_label_list(path)
    except ValueError as error:  # it names the setting of a config
        text = (
            str(error).partition('; for ')[0].replace('label_list', '--labels')
        )
        raise ValueError(text) from error


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise FileNotFoundError(f'{folder} does not exist')
    if not folder.is_dir():
        raise NotADirectoryError(f'{folder} is not a folder')


def _walk(root: Path) -> tuple[list[str], Counter]:
    """Names of images, sorted, and the number of other files."""
    names, others = [], Counter()
    for parent, folders, files in os.walk(
        root, onerror=_fail, followlinks=True
    ):
        folders[:] = sorted(
            f
            for f in folders
            if not f.startswith(('.', '__')) and not _leads_up(parent, f)
        )
        for file in files:
            suffix = Path(file).suffix.lower()
            if file.startswith('.'):
                continue
            if suffix in EXTENSIONS:
                path = Path(parent, file).relative_to(root)
                names.append(path.as_posix())
            else:
                others[suffix or file] += 1
    return sorted(names), others


def _fail(error: OSError) -> None:
    """A folder that cannot be read is not left out without a word."""
    raise error


def _leads_up(parent: str, name: str) -> bool:
    """Whether a folder is a link to one that contains it."""
    link = Path(parent, name)
    return link.is_symlink() and Path(parent).resolve().is_relative_to(
        link.resolve()
    )


def _decode_all(root: Path, names: Sequence[str]) -> tuple[float, list[str]]:
    """Median of the shorter sides, and names of unreadable files."""
    names = names[:: math.ceil(len(names) / _MAX_DECODED) or 1]
    with ThreadPoolExecutor(count_cores()) as pool:
        found = pool.map(lambda name: _shorter_side(root / name), names)
        sides = [
            *track(
                found,
                'Looking at images',
                len(names),
                transient=True,
                disable=len(names) < 1000,
            )
        ]
    pairs = zip(names, sides, strict=True)
    unreadable = [name for name, side in pairs if side is None]
    known = [side for side in sides if side is not None]
    return float(median(known)) if known else 0.0, unreadable


def _shorter_side(path: Path) -> int | None:
    """In pixels; None if the file cannot be read or decoded."""
    try:
        content = path.read_bytes()
        header = read_header(content)
        min_reduction(header, str(path), MAX_PIXELS)
        # A JPEG is decoded at an eighth of its size, which takes half the
        # time.
        reduced = header is not None and header.reducible
        image = decode(content, str(path), 8 if reduced else 1)
    except (OSError, BrokenImageError):
        return None
    return min(header.size if header is not None else image.shape[:2])


def _class_of(name: str, split: bool) -> str:
    *folders, _ = name.split('/')
    if split and folders:
        role = folders.pop(0).lower()
        if role not in TRAIN_FOLDERS + VAL_FOLDERS:
            return 'unlabeled'
    return folders[0] if folders else 'unlabeled'


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    """Indices of images by path and by file name."""
    where: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        for key in {name, name.rpartition('/')[2]}:
            where.setdefault(key, []).append(index)
    return where


def _in_folder(line: str, root: Path) -> str:
    """A line without the path of the folder that it begins with."""
    absolute = root.absolute()
    for path in (absolute, absolute.resolve(), root, Path(root.name)):
        start = f'{path.as_posix()}/'
        if line.removeprefix('./').startswith(start):
            return line.removeprefix('./').removeprefix(start)
    return line


def _split_line(line: str, known: dict) -> tuple[str, str | None]:
    """Name and class of a line; names may contain blanks and commas."""
    line = line.removeprefix('./')
    if line in known:
        return line, None
    for separator in (',', '\t', ' '):
        name, found, label = line.rpartition(separator)
        if found and name.strip() in known:
            return name.strip(), label.strip()
    return line, None


def _relabel(
    folder: ImageFolder, found: dict[int, str | None], path: Path
) -> ImageFolder:
    """The folder with the labels of a list alone."""
    given = set(found.values())
    labels = [UNLABELED] * len(folder)
    if given == {None}:
        for index in found:
            labels[index] = folder.labels[index]
            if labels[index] == UNLABELED:
                raise ValueError(
                    f'--labels {path}: {folder.names[index]!r} is in no class '
                    'folder; write its class behind its name'
                )
        return replace(folder, labels=labels)
    if None in given:
        raise ValueError(
            f'--labels {path}: some lines have a class and some have none'
        )
    classes = tuple(sorted(given - {str(UNLABELED)}))
    for index, label in found.items():
        if label in classes:
            labels[index] = classes.index(label)
    return replace(folder, labels=labels, classes=classes)
