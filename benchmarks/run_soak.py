"""Disturb a pre-training again and again: does it end as if undisturbed?

python tools/benchmarks/soak.py --minutes 5 --out work_dirs/soak.json
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks.soak.plan import Plan
from benchmarks.soak.report import build_results, print_results
from benchmarks.soak.soak import Soak, SoakError, SoakSettings
from benchmarks.soak.verdict import judge
from mmunimoco.utils.atomic import write_json
from mmunimoco.utils.progress import ProgressDisplay

ROOT = Path(__file__).resolve().parents[2]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='On the CPU, on Linux. Exit status 0: all of the verdict is '
        'yes, 1: it is not. docs/reliability.md says what is injected and '
        'how it is judged.',
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=60.0,
        help='how long it takes, the undisturbed run included (default: 60; '
        'however short, there are two faults)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the training and of the faults (default: 0)',
    )
    parser.add_argument(
        '--processes',
        type=int,
        default=1,
        help='processes that train together (default: 1)',
    )
    parser.add_argument(
        '--repeat',
        type=Path,
        metavar='FILE.json',
        help='do what an earlier soak did: its steps, its faults, its seed, '
        'whatever the time',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE.json',
        help='the results (default: soak.json in the work folder)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/soak'),
        help='checkpoints and logs, in a new folder (default: %(default)s)',
    )
    args = parser.parse_args()
    if not Path('/proc/self/stat').is_file():
        parser.error('needs Linux, whose /proc shows the processes')
    if args.minutes <= 0:
        parser.error(f'--minutes must be above 0, got {args.minutes:g}')
    if args.seed < 0:
        parser.error(f'--seed must be 0 or more, got {args.seed}')
    if args.processes < 1:
        parser.error(f'--processes must be 1 or more, got {args.processes}')
    if args.out is not None and args.out.suffix != '.json':
        parser.error(f'--out must end with .json, got {args.out}')
    try:
        args.plan = args.repeat and read_plan(args.repeat)
    except (OSError, ValueError) as error:
        parser.error(f'--repeat {args.repeat}: {error}')
    return args


def read_plan(path: Path) -> Plan:
    results = json.loads(path.read_text())
    try:
        return Plan.from_dict(results['plan'])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'there is no plan of a soak in it ({error})'
        ) from None


def main() -> int:
    args = parse_args()
    # A folder of its own: nothing of an earlier run is in the way.
    folder = args.work_dir.resolve() / time.strftime('%Y%m%d_%H%M%S')
    out = args.out or folder / 'soak.json'
    console = Console()
    settings = SoakSettings(
        root=ROOT,
        folder=folder,
        minutes=args.minutes,
        seed=args.plan.seed if args.plan else args.seed,
        processes=args.plan.processes if args.plan else args.processes,
        plan=args.plan,
    )
    # As Ctrl-C: nothing goes on training.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    soak = Soak(settings, ProgressDisplay(console))
    try:
        record = soak.run()
    except KeyboardInterrupt:
        print('soak: stopped, no process is left', file=sys.stderr)
        return 130
    except SoakError as error:
        print(f'soak: {error}', file=sys.stderr)
        return 1
    checks = judge(record)
    write_json(out, build_results(soak, record, checks))
    print_results(console, record, checks)
    print(f'Results: {os.path.relpath(out)}; logs: {os.path.relpath(folder)}')
    return 0 if all(check.passed for check in checks) else 1


if __name__ == '__main__':
    sys.exit(main())
