"""Images in tar files, WebDataset's shards among them, read where they are.

An index tells where in which file an image begins, so that any image is one
read away, as data sets that shuffle and hide labels need it. The format is
read by Python's ``tarfile``; WebDataset itself only streams.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from os.path import relpath
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from mmengine.fileio import BaseStorageBackend, register_backend
from mmpretrain.datasets.imagenet import ImageNet

from mmunimoco.utils.atomic import write_atomic

_OPEN = 128  # shards at a time; systems allow 1024 files and fewer
_CLASS = '.cls'  # WebDataset's name of a file with a class id


def index_tars(
    out: str,
    shards: Sequence[str],
    shard_names: bool = False,
    track: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> tuple[int, int, str]:
    """Write down where the images of tar files are.

    Beside ``out`` (a NumPy file) come ``out.shards``, the tar files, and
    ``out.txt``, a line ``name class`` each, as ``ann_file`` of mmpretrain's
    ``CustomDataset`` has it. A class is what ``KEY.cls`` says of ``KEY.jpg``,
    as in WebDataset's shards, -1 (none) for images without one; if there is
    no such file at all, the folders are the classes, in alphabetical order.

    Args:
        out (str): The index to write. It refers to the tar files relative
            to its own folder.
        shards (Sequence[str]): Tar files, not compressed.
        shard_names (bool): Whether names begin with that of their tar file,
            for names that are in several. Defaults to False.
        track (Callable): Shows progress, as ``rich.progress.track`` does.
            Defaults to ``iter``.

    Returns:
        tuple[int, int, str]: How many images, how many of them have a
        class, and the path of the list.

    Raises:
        ValueError: If a file is no plain tar, there are no images, or two
            have the same name.
    """
    rows, names, classes = [], [], {}
    for number, shard in enumerate(track(shards)):
        prefix = f'{Path(shard).stem}/' if shard_names else ''
        for name, offset, content in _members(shard):
            name = prefix + name
            if name.endswith(_CLASS):
                classes[_stem(name)] = _class_id(content, name, shard)
            else:
                rows.append((_key(name), number, offset, content))
                names.append(name)
    _check_names([row[0] for row in rows], names, shards)
    labels = _labels(names, classes)
    # Keys, sorted, shards, offsets and sizes, each end to end.
    table = np.array(sorted(rows), np.uint64).T.copy()
    folder = Path(out).resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    with open(out, 'wb') as file:
        np.save(file, table)
    listed = [
        f'{Path(shard).stat().st_size} {relpath(shard, folder)}\n'
        for shard in shards
    ]
    write_atomic(Path(f'{out}.shards'), ''.join(listed))
    lines = [f'{n} {c}\n' for n, c in zip(names, labels, strict=True)]
    write_atomic(Path(f'{out}.txt'), ''.join(lines))
    return len(names), sum(label >= 0 for label in labels), f'{out}.txt'


def _members(shard: str) -> Iterator[tuple]:
    """(name, offset, size) of images, (name, offset, content) of classes."""
    try:
        with tarfile.open(shard, 'r:') as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))
                if not member.isreg() or member.issparse():
                    continue
                if name.endswith(_CLASS):
                    content = tar.extractfile(member).read()
                    yield name, member.offset_data, content
                elif name.lower().endswith(ImageNet.IMG_EXTENSIONS):
                    yield name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise ValueError(
            f'{shard} is no tar file, or a compressed or damaged one '
            f'({error}); images gain nothing by compression: unpack it '
            '(gunzip)'
        ) from None


def _class_id(content: bytes, name: str, shard: str) -> int:
    try:
        return int(content)
    except ValueError:
        raise ValueError(
            f'{name} in {shard} has {content[:20]!r}; a class id is needed'
        ) from None


def _labels(names: list[str], classes: dict[str, int]) -> list[int]:
    if classes:
        return [classes.get(_stem(name), -1) for name in names]
    folders = [str(PurePosixPath(name).parent) for name in names]
    known = {folder: i for i, folder in enumerate(sorted(set(folders)))}
    if len(known) == 1:  # no classes: all images lie side by side
        return [-1] * len(names)
    return [known[folder] for folder in folders]


def _check_names(keys: list[int], names: list[str], shards: Sequence) -> None:
    if not names:
        raise ValueError(f'no images in {len(shards)} tar files')
    seen = set()
    for key, name in zip(keys, names, strict=True):
        if key in seen:
            raise ValueError(
                f'{name} is there twice; if names begin anew in each tar '
                'file, use --shard-names'
            )
        seen.add(key)


def _stem(name: str) -> str:
    """Up to the first dot of the file name: what WebDataset goes by."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.split('.', 1)[0]))


def _key(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little')


class TarBackend(BaseStorageBackend):
    """Read files out of tar files.

    Any transform that has ``backend_args`` can use it::

        backend_args=dict(backend='tar', index='data/train.idx')

    The index is mapped into memory, once for all workers of a machine.

    Args:
        index (str): Written by :func:`index_tars`.

    Raises:
        FileNotFoundError: If there is no such index.
    """

    def __init__(self, index: str) -> None:
        self.index = Path(index).expanduser()
        self.table = np.asarray(np.load(self.index, mmap_mode='r'))
        lines = Path(f'{self.index}.shards').read_text().splitlines()
        self.shards = [line.split(' ', 1) for line in lines]
        # Files that it forgets are closed: nothing else refers to them.
        self._opened = lru_cache(_OPEN)(self._open)

    def get(self, filepath: str | Path) -> bytes:
        """The content of a file.

        Args:
            filepath (str | Path): Its name, as in the list of the index.

        Raises:
            FileNotFoundError: If the index does not have it.
            ValueError: If the tar file is another one than at that time.
        """
        keys, key = self.table[0], np.uint64(_key(str(filepath)))
        column = int(np.searchsorted(keys, key))
        if column == len(keys) or keys[column] != key:
            raise FileNotFoundError(f'{filepath} is not in {self.index}')
        shard, offset, size = self.table[1:, column].tolist()
        # Needs no position in the file, which processes may share.
        content = os.pread(self._opened(shard).fileno(), size, offset)
        if len(content) < size:
            raise ValueError(f'{filepath}: its tar file ends too early')
        return content

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """The same as text."""
        return self.get(filepath).decode(encoding)

    def _open(self, shard: int) -> BinaryIO:
        size, name = self.shards[shard]
        path = self.index.parent / name
        if path.stat().st_size != int(size):
            raise ValueError(
                f'{path} has changed since {self.index} was written: index '
                'it anew'
            )
        return path.open('rb', buffering=0)


register_backend('tar', TarBackend, force=True)
