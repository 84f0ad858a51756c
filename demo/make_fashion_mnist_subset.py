"""Write the class-balanced subset of Fashion-MNIST that the demo uses.

Fashion-MNIST is 70 000 gray images of 28 x 28 by Zalando SE (2017, MIT
licence, https://github.com/zalandoresearch/fashion-mnist). The output is read
by the dataset ``NpzImages``.
"""

import argparse
import hashlib
import os.path as osp
import sys
import zipfile

import numpy as np
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES
from mmpretrain.datasets.mnist import read_sn3_pascalvincent_tensor

from mmunimoco.datasets.npz_images import NpzSplit

from . import DATA_FILE

NUM_CLASSES = len(FASHIONMNIST_CATEGORITES)
_IDX_PREFIX = {'train': 'train', 'test': 't10k'}


def read_idx_split(folder: str, split: str) -> NpzSplit:
    """Read a whole split from the original idx files, gzipped or not.

    Args:
        folder (str): Holds ``train-images-idx3-ubyte[.gz]`` and so on.
        split (str): 'train' or 'test'.

    Returns:
        NpzSplit: All images in file order; the index is the position.

    Raises:
        FileNotFoundError: If a file is missing.
    """
    prefix = _IDX_PREFIX[split]
    images = _read_idx(folder, f'{prefix}-images-idx3-ubyte')
    labels = _read_idx(folder, f'{prefix}-labels-idx1-ubyte')
    return NpzSplit(images, labels, np.arange(len(images)))


def _read_idx(folder: str, name: str) -> np.ndarray:
    for candidate in (name, f'{name}.gz'):
        path = osp.join(folder, candidate)
        if osp.isfile(path):
            return read_sn3_pascalvincent_tensor(path).numpy()
    raise FileNotFoundError(f'neither {name} nor {name}.gz is in {folder!r}')


def select_balanced(part: NpzSplit, count: int) -> NpzSplit:
    """Keep the first ``count / 10`` images of each class, in file order.

    The original files are shuffled, so no random numbers are needed.

    Raises:
        ValueError: If ``count`` is not a positive multiple of 10 or a class
            has too few images.
    """
    if count <= 0 or count % NUM_CLASSES:
        raise ValueError(f'count must be a multiple of 10, got {count}')
    per_class = count // NUM_CLASSES
    smallest = int(np.bincount(part.labels, minlength=NUM_CLASSES).min())
    if smallest < per_class:
        raise ValueError(
            f'{per_class} images per class requested, but the smallest class '
            f'has {smallest}'
        )
    of_class = [np.flatnonzero(part.labels == c) for c in range(NUM_CLASSES)]
    keep = np.sort(np.concatenate([places[:per_class] for places in of_class]))
    return NpzSplit(part.images[keep], part.labels[keep], part.indices[keep])


def write_archive(path: str, splits: dict[str, NpzSplit]) -> None:
    """Write an archive whose bytes depend on its content alone.

    ``np.savez_compressed`` stores the time of writing and compresses about
    15 % less than LZMA; ``np.load`` reads both.
    """
    arrays = {}
    for split, part in splits.items():
        arrays[f'{split}_images'] = part.images.astype(np.uint8)
        arrays[f'{split}_labels'] = part.labels.astype(np.uint8)
        arrays[f'{split}_indices'] = part.indices.astype(np.int32)
    arrays['classes'] = np.array(FASHIONMNIST_CATEGORITES)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            # ZipInfo's default date is the constant 1980-01-01; system and
            # mode would otherwise depend on the machine.
            info = zipfile.ZipInfo(f'{name}.npy')
            info.compress_type = zipfile.ZIP_LZMA
            info.create_system = 3
            info.external_attr = 0o644 << 16
            with archive.open(info, 'w') as stream:
                np.lib.format.write_array(
                    stream,
                    np.ascontiguousarray(array),
                    version=(1, 0),
                    allow_pickle=False,
                )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'folder', help='holds the four original idx files, gzipped or not'
    )
    parser.add_argument('--out', default=DATA_FILE)
    parser.add_argument('--train', type=int, default=6000, metavar='N')
    parser.add_argument('--test', type=int, default=2000, metavar='N')
    parser.add_argument('--force', action='store_true', help='overwrite')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if osp.exists(args.out) and not args.force:
        print(f'{args.out} exists; --force overwrites it', file=sys.stderr)
        return 1
    counts = dict(train=args.train, test=args.test)
    try:
        splits = {
            split: select_balanced(read_idx_split(args.folder, split), count)
            for split, count in counts.items()
        }
        write_archive(args.out, splits)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    with open(args.out, 'rb') as file:
        content = file.read()
    print(f'{args.out}: {args.train} + {args.test} images, {len(content)} B')
    print(f'sha256 {hashlib.sha256(content).hexdigest()}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
