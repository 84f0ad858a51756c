"""Write the images of these studies: the first of each class of CIFAR-10.

1 000 training and 200 test images of each class, in their order, as an
``.npz`` file that ``NpzImages`` reads::

    python make_subset.py data/cifar10 data/cifar10_10k.npz
"""

import argparse

import numpy as np
from torchvision.datasets import CIFAR10


def first_of_each_class(images: CIFAR10, count: int) -> dict:
    """Return the first ``count`` images of each class, with their indices."""
    labels = np.array(images.targets)
    chosen = [np.flatnonzero(labels == c)[:count] for c in range(10)]
    indices = np.sort(np.concatenate(chosen))
    return dict(
        images=images.data[indices],
        labels=labels[indices].astype(np.uint8),
        indices=indices.astype(np.int32),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', help='folder of CIFAR-10, downloaded if empty')
    parser.add_argument('out', help='.npz file to write')
    args = parser.parse_args()
    arrays = {}
    for split, count in (('train', 1000), ('test', 200)):
        images = CIFAR10(args.root, train=split == 'train', download=True)
        part = first_of_each_class(images, count)
        arrays |= {f'{split}_{name}': array for name, array in part.items()}
        arrays['classes'] = np.array(images.classes)
    np.savez_compressed(args.out, **arrays)


if __name__ == '__main__':
    main()
