"""The committed subset of Fashion-MNIST: selecting, writing, reading.

Fashion-MNIST is 70 000 gray images of 28 x 28 by Zalando SE (2017, MIT
licence, https://github.com/zalandoresearch/fashion-mnist). The archive is a
plain ``.npz`` with six arrays, ``{train,test}_images`` (N, 28, 28) uint8,
``{train,test}_labels`` (N,) uint8 and ``{train,test}_indices`` (N,) int32,
the position of each image in the original file.
"""

import lzma
import os.path as osp
import zipfile
import zlib
from typing import NamedTuple

import numpy as np
from mmpretrain.datasets.mnist import read_sn3_pascalvincent_tensor

DEFAULT_ARCHIVE = osp.join(
    osp.dirname(__file__), 'data', 'fashion_mnist_subset.npz'
)
SPLITS = ('train', 'test')
NUM_CLASSES = 10
IMAGE_SHAPE = (28, 28)
_IDX_PREFIX = {'train': 'train', 'test': 't10k'}


class FashionMNISTSplit(NamedTuple):
    """One split.

    Attributes:
        images: (N, 28, 28) uint8, 0 is background.
        labels: (N,) int64 in [0, 10).
        indices: (N,) int64, position in the original Fashion-MNIST file.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def read_archive(split: str, path: str = DEFAULT_ARCHIVE) -> FashionMNISTSplit:
    """Read one split of an archive, by default of the committed one.

    Args:
        split: 'train' or 'test'.
        path: File written by :func:`write_archive`.

    Raises:
        ValueError: Unknown split, or a file that is damaged or is no such
            archive.
        FileNotFoundError: No file at ``path``.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'no Fashion-MNIST archive at {path!r}; leave `archive` empty for '
            'the one that comes with mmunimoco, or write one with '
            'tools/dataset_converters/make_fashion_mnist_subset.py'
        )
    names = [f'{split}_{part}' for part in FashionMNISTSplit._fields]
    try:
        with np.load(path, allow_pickle=False) as archive:
            parts = [archive[name] for name in names]
    except (
        # What a cut, altered or altogether different file ends in.
        *(EOFError, KeyError, OSError, TypeError, ValueError),
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    ) as error:
        raise ValueError(
            f'{path!r} is damaged or no Fashion-MNIST archive with the '
            f'arrays {names}: {error}'
        ) from error
    return _checked(path, *parts)


def _checked(path, images, labels, indices) -> FashionMNISTSplit:
    faults = []
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE:
        faults.append(f'images are {images.dtype} {images.shape}')
    if not labels.shape == indices.shape == images.shape[:1]:
        faults.append(
            f'{images.shape[:1]} images, {labels.shape} labels and '
            f'{indices.shape} indices'
        )
    if labels.size == 0 or labels.min() < 0 or labels.max() >= NUM_CLASSES:
        faults.append('labels are missing or not in [0, 10)')
    if faults:
        raise ValueError(
            f'{path!r} is no Fashion-MNIST archive: {"; ".join(faults)}'
        )
    return FashionMNISTSplit(
        images, labels.astype(np.int64), indices.astype(np.int64)
    )


def read_idx_split(folder: str, split: str) -> FashionMNISTSplit:
    """Read a whole split from the original idx files (gzipped or not).

    Args:
        folder: Holds ``train-images-idx3-ubyte[.gz]`` and so on.
        split: 'train' or 'test'.

    Raises:
        FileNotFoundError: A file is not there.
    """
    prefix = _IDX_PREFIX[split]
    images = _read_idx(folder, f'{prefix}-images-idx3-ubyte')
    labels = _read_idx(folder, f'{prefix}-labels-idx1-ubyte')
    return _checked(folder, images, labels, np.arange(len(images)))


def _read_idx(folder: str, name: str) -> np.ndarray:
    for candidate in (name, f'{name}.gz'):
        path = osp.join(folder, candidate)
        if osp.isfile(path):
            return read_sn3_pascalvincent_tensor(path).numpy()
    raise FileNotFoundError(f'neither {name} nor {name}.gz is in {folder!r}')


def select_balanced(split: FashionMNISTSplit, count: int) -> FashionMNISTSplit:
    """Keep the first ``count / 10`` images of each class, in file order.

    No random numbers: the files are shuffled already, and the choice can be
    repeated with any tool.

    Raises:
        ValueError: ``count`` is no positive multiple of 10, or a class has
            too few images.
    """
    if count <= 0 or count % NUM_CLASSES:
        raise ValueError(f'count must be a multiple of 10, got {count}')
    per_class = count // NUM_CLASSES
    smallest = int(np.bincount(split.labels, minlength=NUM_CLASSES).min())
    if smallest < per_class:
        raise ValueError(
            f'{per_class} images a class asked for, but the smallest class '
            f'has {smallest}'
        )
    keep = np.sort(
        np.concatenate(
            [
                np.flatnonzero(split.labels == c)[:per_class]
                for c in range(NUM_CLASSES)
            ]
        )
    )
    return FashionMNISTSplit(*(part[keep] for part in split))


def write_archive(path: str, splits: dict) -> None:
    """Write an archive whose bytes depend on its content alone.

    ``np.savez_compressed`` stamps the time into the file and packs a seventh
    worse than LZMA; ``np.load`` reads both.

    Args:
        path: File to write.
        splits: Name of the split to :class:`FashionMNISTSplit`.
    """
    dtypes = (np.uint8, np.uint8, np.int32)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_LZMA) as archive:
        for split, parts in splits.items():
            for field, part, dtype in zip(
                parts._fields, parts, dtypes, strict=True
            ):
                # ZipInfo's default date is the constant 1980-01-01; system
                # and mode would otherwise tell where it was written.
                info = zipfile.ZipInfo(f'{split}_{field}.npy')
                info.compress_type = zipfile.ZIP_LZMA
                info.create_system = 3
                info.external_attr = 0o644 << 16
                with archive.open(info, 'w') as stream:
                    np.lib.format.write_array(
                        stream,
                        np.ascontiguousarray(part, dtype),
                        version=(1, 0),
                        allow_pickle=False,
                    )
