"""Print what a pre-training step costs, counted on paper.

python tools/benchmarks/cost_model.py --gpus 1 8 64 512 --batch 32
"""

import argparse
import sys
from dataclasses import replace

from rich.console import Console

from mmunimoco.utils.tables import print_table

from .cost_model import SHUFFLES, Step, step_cost
from .cost_times import (
    COST_COLUMNS,
    HARDWARE,
    TIME_COLUMNS,
    cores_needed,
    cost_rows,
    time_row,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='docs/performance.md tells what is counted and how far it was '
        'checked. Times are estimates from data sheets.',
    )
    parser.add_argument('--gpus', type=int, nargs='+', default=[1, 8, 64, 512])
    parser.add_argument('--batch', type=int, default=32, help='per GPU')
    parser.add_argument('--hardware', choices=list(HARDWARE), default='h200')
    parser.add_argument('--depth', type=int, default=50, help='of the ResNet')
    parser.add_argument('--image', type=int, default=224)
    parser.add_argument('--queue-len', type=int, default=65536)
    parser.add_argument(
        '--fp32', action='store_true', help='no mixed precision'
    )
    parser.add_argument(
        '--core-ms',
        type=float,
        default=1.4,
        help='milliseconds of a core for both views of an image (default: '
        '%(default)s, measured for the fast path; 14.6 for the other)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    hardware = HARDWARE[args.hardware]
    core_seconds = args.core_ms / 1000
    try:
        step = Step(
            gpus=1,
            batch=args.batch,
            activation_bytes=4 if args.fp32 else 2,
            depth=args.depth,
            image=args.image,
            queue_len=args.queue_len,
        )
        steps = [
            replace(step, gpus=gpus, shuffle=shuffle)
            for gpus in args.gpus
            for shuffle in SHUFFLES[: 1 if gpus == 1 else 2]
        ]
        cost = step_cost(step)
    except ValueError as error:
        sys.exit(f'cost_model.py: {error}')
    console = Console()
    print_table(
        console,
        f'ResNet-{step.depth} at {step.image}',
        COST_COLUMNS,
        cost_rows(step, cost),
    )
    print_table(
        console,
        f'A step at most as fast as this: {hardware.name}',
        TIME_COLUMNS,
        [time_row(x, hardware, core_seconds) for x in steps],
    )
    cores = cores_needed(step, hardware, core_seconds)
    console.print(f'Cores that keep one such GPU busy: {cores:.1f}')


if __name__ == '__main__':
    main()
