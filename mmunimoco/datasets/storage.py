"""Storage backends for mmengine: a cache folder, and tar files.

Any transform that has ``backend_args`` can use them.
"""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from os.path import relpath
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from mmengine import fileio
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.logging import print_log
from mmpretrain.datasets.imagenet import ImageNet

from mmunimoco.utils.atomic import write_atomic

from .folder_report import number_folders
from .label_lists import check_name

_MAX_OPEN = 128  # tar files; the system's limit may be 1024 files
_CLASS_SUFFIX = '.cls'  # WebDataset: a file with the class id of an image


class CachedBackend(BaseStorageBackend):
    """Keep a copy of each file that is read in a folder.

    With a folder in ``/dev/shm`` the copies are in memory, with one on a
    local disk they outlast the run. All workers and processes of a machine
    share them, so each file is fetched once::

        backend_args=dict(backend='cached', cache_dir='/dev/shm/images')

    Later changes of a file at its source are not noticed.

    Args:
        cache_dir (str): The folder; created if it does not exist.
        keep_free (int): Bytes to leave free there (``/dev/shm`` also holds
            the batches of workers). Files that do not fit are read from their
            source every time. Defaults to 2 ** 30.
        source (dict, optional): ``backend_args`` of the source. Defaults to
            None, which decides by the prefix of the path.
    """

    def __init__(
        self,
        cache_dir: str,
        keep_free: int = 2**30,
        source: dict | None = None,
    ) -> None:
        self.cache_dir = Path(cache_dir).expanduser()
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        self.keep_free = keep_free
        self.source = source and dict(source)
        self._full = False

    def get(self, filepath: str | Path) -> bytes:
        """Return the content of a file, None if the source returns None."""
        path = self._cache_path(filepath)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            content = fileio.get(filepath, backend_args=self.source)
        if content is not None and self._fits(len(content)):
            try:
                write_atomic(path, content)
            except OSError as error:  # such as a quota, which is not seen
                self._stop(str(error))
        return content

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Return the content of a file as text."""
        return self.get(filepath).decode(encoding)

    def _cache_path(self, filepath: str | Path) -> Path:
        """Return a path unique to the file; 256 folders keep each small."""
        name = str(filepath)
        if self.source is None and '://' not in name:
            name = str(Path(name).absolute())
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.cache_dir / digest[:2] / digest[2:]

    def _fits(self, size: int) -> bool:
        if self._full:
            return False
        free = shutil.disk_usage(self.cache_dir).free
        if free < self.keep_free + size:
            self._stop(f'there are only {free / 2**20:.0f} MB left')
        return not self._full

    def _stop(self, reason: str) -> None:
        self._full = True
        print_log(
            f'CachedBackend: {self.cache_dir} takes no more files ({reason}); '
            'those that are not in it are read from their source every time',
            logger='current',
        )


class TarBackend(BaseStorageBackend):
    """Read files out of tar files by means of an index.

    ::

        backend_args=dict(backend='tar', index='data/train.idx')

    The index is memory-mapped, so the workers of a machine share it.

    Args:
        index (str): Index written by :func:`index_tars`.

    Raises:
        FileNotFoundError: If the index does not exist.
    """

    def __init__(self, index: str) -> None:
        self.index = Path(index).expanduser()
        self.table = np.asarray(np.load(self.index, mmap_mode='r'))
        lines = Path(f'{self.index}.shards').read_text().splitlines()
        self.shards = [line.split(' ', 1) for line in lines]
        # Files that drop out of the cache are closed by their destructor.
        self._opened = lru_cache(_MAX_OPEN)(self._open)

    def get(self, filepath: str | Path) -> bytes:
        """Return the content of a file.

        Args:
            filepath (str | Path): Its name, as listed beside the index.

        Raises:
            FileNotFoundError: If it is not in the index.
            ValueError: If its tar file has changed since it was indexed.
        """
        keys, key = self.table[0], np.uint64(_key(str(filepath)))
        column = int(np.searchsorted(keys, key))
        if column == len(keys) or keys[column] != key:
            raise FileNotFoundError(f'{filepath} is not in {self.index}')
        shard, offset, size = self.table[1:, column].tolist()
        # pread leaves alone the file position, which forked workers share.
        content = os.pread(self._opened(shard).fileno(), size, offset)
        if len(content) < size:
            raise ValueError(
                f'{filepath}: {self.shards[shard][1]} is truncated'
            )
        return content

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Return the content of a file as text."""
        return self.get(filepath).decode(encoding)

    def _open(self, shard: int) -> BinaryIO:
        size, name = self.shards[shard]
        path = self.index.parent / name
        if path.stat().st_size != int(size):
            raise ValueError(
                f'{path} has changed since {self.index} was written: run '
                'index_tars.py again'
            )
        return path.open('rb', buffering=0)


def index_tars(
    out: str,
    shards: Sequence[str],
    shard_names: bool = False,
    track: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> tuple[int, int, str]:
    """Write an index of the images in tar files.

    Three files are written:

    - ``out``: a NumPy array, (4, N) uint64, whose rows are hashes of the
      names (ascending), shards, offsets and sizes in bytes;
    - ``out.shards``: a line ``size path`` for each tar file, relative to the
      folder of ``out``;
    - ``out.txt``: a line ``name class`` for each image, for ``ann_file`` of
      mmpretrain's ``CustomDataset``.

    The class of ``KEY.jpg`` is the content of ``KEY.cls``, as in the shards
    of WebDataset; images without such a file get -1 (unlabeled). If there is
    no ``.cls`` file at all, the folders in the tar files are the classes, in
    alphabetical order; ``unlabeled`` is none.

    Args:
        out (str): The index to write.
        shards (Sequence[str]): Uncompressed tar files.
        shard_names (bool): Whether to prefix names with the stem of their tar
            file, for names that occur in several. Defaults to False.
        track (Callable): Shows progress, like ``rich.progress.track``.
            Defaults to ``iter``.

    Returns:
        tuple[int, int, str]: Number of images, number of labeled ones, and
        the path of the list.

    Raises:
        ValueError: If a file is not an uncompressed tar, there are no images,
            a class is not an integer, or a name occurs twice or cannot stand
            in a list.
    """
    rows, names, folders, classes = [], [], [], {}
    for number, shard in enumerate(track(shards)):
        prefix = f'{Path(shard).stem}/' if shard_names else ''
        for name, offset, content in _members(shard):
            folder, name = str(PurePosixPath(name).parent), prefix + name
            if name.endswith(_CLASS_SUFFIX):
                classes[_stem(name)] = _class_id(content, name, shard)
            else:
                check_name(name, shard)
                rows.append((_key(name), number, offset, content))
                names.append(name)
                folders.append(folder)
    if not names:
        raise ValueError(f'no images in {len(shards)} tar files')
    _check_unique([row[0] for row in rows], names)
    labels = (
        [classes.get(_stem(name), -1) for name in names]
        if classes
        else _labels_of(folders)
    )
    folder = Path(out).resolve().parent
    index = io.BytesIO()
    np.save(index, np.array(sorted(rows), np.uint64).T.copy())
    write_atomic(Path(out), index.getvalue())
    listed = [
        f'{Path(shard).stat().st_size} {relpath(shard, folder)}\n'
        for shard in shards
    ]
    write_atomic(Path(f'{out}.shards'), ''.join(listed))
    lines = [f'{n} {c}\n' for n, c in zip(names, labels, strict=True)]
    write_atomic(Path(f'{out}.txt'), ''.join(lines))
    return len(names), sum(label >= 0 for label in labels), f'{out}.txt'


def _members(shard: str) -> Iterator[tuple]:
    """Yield (name, offset, size) of images, (name, offset, content) of .cls"""
    try:
        with tarfile.open(shard, 'r:') as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))
                if not member.isreg() or member.issparse():
                    continue
                if name.endswith(_CLASS_SUFFIX):
                    content = tar.extractfile(member).read()
                    yield name, member.offset_data, content
                elif name.lower().endswith(ImageNet.IMG_EXTENSIONS):
                    yield name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise ValueError(
            f'{shard} is compressed, damaged or not a tar file ({error}); '
            'decompress it with gunzip (images gain nothing by compression)'
        ) from None


def _class_id(content: bytes, name: str, shard: str) -> int:
    try:
        return int(content)
    except ValueError:
        raise ValueError(
            f'{name} in {shard} holds {content[:20]!r}; expected a class id'
        ) from None


def _labels_of(folders: list[str]) -> list[int]:
    """Class ids of images by their folders in the tar files."""
    if len(set(folders)) == 1:  # no classes
        return [-1] * len(folders)
    ids = number_folders(folders)
    return [ids[folder] for folder in folders]


def _check_unique(keys: list[int], names: list[str]) -> None:
    seen = set()
    for key, name in zip(keys, names, strict=True):
        if key in seen:
            raise ValueError(
                f'{name} occurs twice; if names repeat between tar files, use '
                '--shard-names'
            )
        seen.add(key)


def _stem(name: str) -> str:
    """Cut a name at the first dot of its file name, as WebDataset does."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.split('.', 1)[0]))


def _key(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little')


# Without force=True: an existing backend of that name is not replaced.
register_backend('cached', CachedBackend)
register_backend('tar', TarBackend)
