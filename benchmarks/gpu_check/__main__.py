"""The command line of the check."""

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

import mmunimoco

from .check import run_check
from .environment import describe_commit, describe_hardware, describe_versions
from .plan import NAMES, plan_parts
from .transfer_part import plan_transfer


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/gpu_check.sh',
        description='Check the project on a GPU, or its CPU half where there '
        'is none, in less than nine minutes.',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='the JSON report (default: gpu_check.json in --work-dir)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/gpu_check'),
        help='logs and temporary files (default: %(default)s)',
    )
    parser.add_argument(
        '--device',
        choices=['auto', 'cpu', 'cuda'],
        default='auto',
        help='default: cuda where there is one',
    )
    parser.add_argument(
        '--parts',
        nargs='+',
        choices=NAMES,
        default=NAMES,
        help='run these parts only',
    )
    parser.add_argument(
        '--commit',
        help='the commit, for the report, of a copy without its history',
    )
    parser.add_argument(
        '--transfer',
        action='store_true',
        help="instead of these parts: build mmcv's CUDA ops, then ten steps "
        'of real detection and segmentation configs; needs a CUDA toolkit',
    )
    parser.add_argument(
        '--mmcv-source',
        type=Path,
        metavar='PATH',
        help='with --transfer: folder or archive to build mmcv from '
        '(default: pip downloads it)',
    )
    args = parser.parse_args()
    if args.mmcv_source and not args.mmcv_source.exists():
        parser.error(f'--mmcv-source {args.mmcv_source} does not exist')
    if args.device == 'auto':
        args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    elif args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda, but torch finds no CUDA device')
    return args


def main() -> int:
    args = parse_args()
    root = Path(mmunimoco.__file__).resolve().parents[1]
    out = (args.out or args.work_dir / 'gpu_check.json').resolve()
    # A folder of its own: nothing of an earlier run is read, none is lost.
    folder = args.work_dir.resolve() / time.strftime('%Y%m%d_%H%M%S')
    folder.mkdir(parents=True)
    git = describe_commit(root)
    if args.commit and git['commit'] is None:
        git = dict(commit=args.commit, changed=None)
    header = dict(
        device=args.device,
        git=git,
        versions=describe_versions(),
        machine=describe_hardware(args.device),
    )
    if args.transfer:
        built = folder.parent / 'mmcv'
        source = args.mmcv_source and str(args.mmcv_source.resolve())
        parts = plan_transfer(args.device, root, folder, built, source)
    else:
        parts = plan_parts(args.device, root, folder, tuple(args.parts))
    return run_check(parts, header, out, folder, root, Console())


if __name__ == '__main__':
    sys.exit(main())
