"""Pre-train on a small data set, evaluate, draw and report."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from .settings import DemoSettings
from .transfer_configs import require_transfer
from .workflow import run_demo


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='demo',
        description=__doc__,
        epilog='Finished stages are skipped; after Ctrl-C run it again to '
        'go on.',
    )
    parser.add_argument(
        '--fresh', action='store_true', help='start over, forget old results'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='the same path, much reduced, to see that everything works',
    )
    parser.add_argument(
        '--no-transfer',
        action='store_true',
        help='leave detection and segmentation out; they need mmdet and mmseg',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed (default: 0)'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        help='stages that run at a time (default: the number of cores, at '
        'most 4)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='where everything is written (default: work_dirs/demo, with '
        '--quick work_dirs/demo_quick)',
    )
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f'--seed must be 0 or more, got {args.seed}')
    if args.jobs is not None and args.jobs < 1:
        parser.error(f'--jobs must be 1 or more, got {args.jobs}')
    if args.work_dir is None:
        name = 'demo_quick' if args.quick else 'demo'
        args.work_dir = Path('work_dirs') / name
    return args


def main() -> int:
    args = parse_args()
    settings = DemoSettings(
        args.work_dir,
        seed=args.seed,
        quick=args.quick,
        transfer=not args.no_transfer,
    )
    console = Console()
    if settings.transfer:
        try:
            require_transfer()
        except ImportError as error:
            print(f'demo: {error}', file=sys.stderr)
            return 1
    return run_demo(settings, console, fresh=args.fresh, jobs=args.jobs)


if __name__ == '__main__':
    sys.exit(main())
