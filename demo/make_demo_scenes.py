"""Compose scenes of Fashion-MNIST objects: COCO, VOC and masks of classes."""

import argparse
import sys
from pathlib import Path

from .scenes_files import write_scenes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'out', type=Path, help='folder to write; must be new or empty'
    )
    parser.add_argument(
        '--train', type=int, default=400, help='training scenes'
    )
    parser.add_argument(
        '--val', type=int, default=200, help='validation scenes'
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed')
    parser.add_argument(
        '--size', type=int, default=128, help='height and width in pixels'
    )
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f'--seed must be 0 or more, got {args.seed}')
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    counts = dict(train=args.train, val=args.val)
    try:
        write_scenes(args.out, counts, seed=args.seed, size=args.size)
    except ValueError as error:
        print(f'make_demo_scenes: {error}', file=sys.stderr)
        return 1
    print(
        f'{args.train} training and {args.val} validation scenes: {args.out}'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
