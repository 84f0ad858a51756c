"""Write the subset of Fashion-MNIST that ``DemoFashionMNIST`` reads."""

import argparse
import hashlib
import os.path as osp
import sys

from .fashion_mnist_archive import (
    DEFAULT_ARCHIVE,
    read_idx_split,
    select_balanced,
    write_archive,
)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'folder', help='holds the four original idx files, gzipped or not'
    )
    parser.add_argument('--out', default=DEFAULT_ARCHIVE)
    parser.add_argument('--train', type=int, default=6000, metavar='N')
    parser.add_argument('--test', type=int, default=2000, metavar='N')
    parser.add_argument('--force', action='store_true', help='overwrite')
    return parser.parse_args(argv)


def main(argv=None) -> int:
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
