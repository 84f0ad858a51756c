"""Measure how fast mmunimoco is, side by side with what it is compared with.

python tools/benchmarks/speed.py --out work_dirs/speed.json
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from .case import Settings
from .images import ENVIRONMENT, choose_images
from .run import NAMES, describe_run, load_cases, run_cases

ROOT = Path(__file__).resolve().parents[2]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='docs/benchmarks/README.md tells what is measured, and how.',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='FILE.json',
        help='the results; FILE.png beside it is the plot',
    )
    parser.add_argument(
        '--device',
        choices=['cpu', 'cuda'],
        help='default: cuda where there is one. On a CPU shapes are small, '
        'but for the head',
    )
    parser.add_argument(
        '--cases',
        default=','.join(NAMES),
        help='some of %(default)s (default: all)',
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help=f'folder of photographs in JPEG (default: ${ENVIRONMENT}; '
        'if not set, images are drawn, and the results say so)',
    )
    parser.add_argument(
        '--workers',
        type=int,
        help='processes that load data end to end (default: 1 on a CPU, 16 '
        'for a GPU)',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='everything much reduced, to see that it works; the numbers '
        'mean nothing',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/speed'),
        help='logs and temporary files (default: %(default)s)',
    )
    args = parser.parse_args()
    if args.out.suffix != '.json':
        parser.error(f'--out must end with .json, got {args.out}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda, but torch finds no CUDA device')
    if args.device is None:
        args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if args.workers is None:
        args.workers = 16 if args.device == 'cuda' else 1
    if args.workers < 1:
        parser.error(f'--workers must be 1 or more, got {args.workers}')
    try:
        args.cases = load_cases(args.cases.split(','))
    except ValueError as error:
        parser.error(str(error))
    return args


def main() -> None:
    args = parse_args()
    # A folder of its own: nothing of an earlier run is in the way.
    folder = args.work_dir.resolve() / time.strftime('%Y%m%d_%H%M%S')
    folder.mkdir(parents=True)
    try:
        images, described = choose_images(args.images, folder / 'images')
    except FileNotFoundError as error:
        sys.exit(f'speed.py: {error}')
    settings = Settings(
        device=args.device,
        images=images,
        folder=folder,
        workers=args.workers,
        quick=args.quick,
    )
    options = dict(
        device=args.device,
        cases=[case.name for case in args.cases],
        workers=args.workers,
        quick=args.quick,
    )
    header = describe_run(settings, described, options, ROOT)
    # Bound to the terminal for good: the cases redirect what they print.
    console = Console(file=sys.stdout)
    run_cases(args.cases, settings, args.out.resolve(), header, console)


if __name__ == '__main__':
    main()
