r"""Compare the published views with the fast ones by short training runs.

Which of the two the configs use by default rests on its result
(docs/configs.md, "A faster input path"). DIR has train/ and test/, images of
CIFAR-10 in class sub-folders. Runs that FILE.json has already are not
repeated.

Example:
  python tools/benchmarks/compare_views.py --folder DIR \
      --out docs/benchmarks/views_cifar10.json
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from mmpretrain.utils import register_all_modules

from mmunimoco.utils.atomic import write_json
from mmunimoco.utils.versions import collect_versions, describe_machine

from .view_comparison import Size, compare


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--folder', required=True, type=Path)
    parser.add_argument('--out', required=True, type=Path)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument(
        '--labels', nargs='+', type=float, default=[0.0, 1.0], help='shares'
    )
    parser.add_argument('--images', type=int, default=Size.images)
    parser.add_argument('--test-images', type=int, default=Size.test_images)
    parser.add_argument('--epochs', type=int, default=Size.epochs)
    parser.add_argument('--batch', type=int, default=Size.batch)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/compare_views')
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    size = Size(args.images, args.test_images, args.epochs, args.batch)
    header = dict(versions=collect_versions(), machine=describe_machine())
    try:
        done = read_done(args.out, size)
        compare(
            args.folder,
            args.labels,
            args.seeds,
            size,
            args.work_dir,
            done,
            lambda result: write_json(args.out, header | result),
        )
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def read_done(out: Path, size: Size) -> list[dict]:
    """Runs of an earlier call, if they are of the same size."""
    if not out.exists():
        return []
    result = json.loads(out.read_text())
    if result['size'] != asdict(size):
        raise ValueError(
            f'{out} has runs of {result["size"]}; give another --out, or the '
            'same sizes'
        )
    return result['runs']


if __name__ == '__main__':
    register_all_modules()
    sys.exit(main())
