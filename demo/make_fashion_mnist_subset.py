"""Write the class-balanced subset of Fashion-MNIST that the demo uses.

Fashion-MNIST is 70 000 gray images of 28 x 28 by Zalando SE (2017, MIT
licence, https://github.com/zalandoresearch/fashion-mnist). The dataset
``NpzImages`` reads the output.
"""

import argparse
import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES
from mmpretrain.datasets.mnist import read_sn3_pascalvincent_tensor

from . import DATA_FILE

# Split -> prefix of the original files, and images of each class.
SPLITS = {'train': ('train', 600), 'test': ('t10k', 200)}


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an original file, gzipped or not."""
    for path in (folder / name, folder / f'{name}.gz'):
        if path.is_file():
            return read_sn3_pascalvincent_tensor(str(path)).numpy()
    raise FileNotFoundError(f'neither {name} nor {name}.gz is in {folder}')


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first ``count`` images of each class, in file order.

    The original files are shuffled, so no random numbers are needed.
    """
    places = [np.flatnonzero(labels == c)[:count] for c in range(10)]
    if min(map(len, places)) < count:
        raise ValueError(f'a class has fewer than {count} images')
    return np.sort(np.concatenate(places))


def make_subset(folder: Path) -> dict[str, np.ndarray]:
    """Arrays of the archive, from the four original files in a folder."""
    arrays = {}
    for split, (prefix, count) in SPLITS.items():
        images = read_idx(folder, f'{prefix}-images-idx3-ubyte')
        labels = read_idx(folder, f'{prefix}-labels-idx1-ubyte')
        keep = first_of_each_class(labels, count)
        arrays[f'{split}_images'] = images[keep]
        arrays[f'{split}_labels'] = labels[keep].astype(np.uint8)
        arrays[f'{split}_indices'] = keep.astype(np.int32)
    arrays['classes'] = np.array(FASHIONMNIST_CATEGORITES)
    return arrays


def write_archive(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an ``.npz`` file whose bytes depend on its content alone.

    ``np.savez_compressed`` stores the time of writing and compresses about
    15 % less than LZMA; ``np.load`` reads both.
    """
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            # ZipInfo's default date is the constant 1980-01-01; system and
            # mode would otherwise depend on the machine.
            info = zipfile.ZipInfo(f'{name}.npy')
            info.compress_type = zipfile.ZIP_LZMA
            info.create_system = 3
            info.external_attr = 0o644 << 16
            with archive.open(info, 'w') as stream:
                np.lib.format.write_array(stream, array, (1, 0), False)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='of the four original files')
    parser.add_argument('--out', type=Path, default=Path(DATA_FILE))
    args = parser.parse_args(argv)
    try:
        write_archive(args.out, make_subset(args.folder))
    except (OSError, ValueError) as error:
        print(f'make_fashion_mnist_subset: {error}', file=sys.stderr)
        return 1
    digest = hashlib.sha256(args.out.read_bytes()).hexdigest()
    print(f'{args.out}: {args.out.stat().st_size} bytes, sha256 {digest}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
