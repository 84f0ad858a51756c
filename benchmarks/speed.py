"""Measure the speed of mmunimoco side by side with what it is compared with.

python -m benchmarks.speed --out work_dirs/speed.json
"""

import argparse
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import mmunimoco  # noqa: F401  (registers models and hooks)
from mmunimoco.utils.atomic import write_json
from mmunimoco.utils.versions import describe_environment

from . import turns
from .budget import Budget, OutOfTime
from .cifar import cifar
from .contest import FAILED
from .decode import decode
from .end2end import end2end
from .head import head
from .images import ENVIRONMENT, choose_images, find_images
from .input_path import input_path
from .shuffle import shuffle
from .step import augment, scaling, step
from .tables import print_table
from .trainer import free_memory

# Each takes the settings and returns what goes into the JSON, with its
# results as ``ratios``: name -> median, quartiles and n, or a number.
CASES: dict[str, Callable[['Settings'], dict[str, Any]]] = dict(
    head=head,
    step=step,
    augment=augment,
    decode=decode,
    cifar=cifar,
    input=input_path,
    end2end=end2end,
    shuffle=shuffle,
    scaling=scaling,
)

# Seconds that a case may take beyond its time, to end what it is doing.
GRACE = 5


@dataclass
class Settings:
    """Options of a run.

    Attributes:
        device (str): 'cpu' or 'cuda'.
        images (Path): Folder of photographs.
        folder (Path): For logs and temporary files.
        workers (int): Data loader processes of the case ``end2end``.
        quick (bool): Reduce everything; the numbers then mean nothing.
        batch (list[int] | None): Images per step, of ``step`` one after the
            other, of other cases the largest; None for the device's default.
        budget (Budget): Time of the case.
        save (Callable): Writes what a case has so far.
    """

    device: str
    images: Path
    folder: Path
    workers: int = 1
    quick: bool = False
    batch: list[int] | None = None
    budget: Budget = field(default_factory=Budget)
    save: Callable[[dict], None] = lambda _: None
    _runs: int = field(default=0, repr=False)

    def rounds(self, count: int) -> int:
        """Return the number of timed rounds: ``count``, or 1 if quick."""
        return 1 if self.quick else count

    def image_paths(self) -> list[Path]:
        """List the photographs."""
        return find_images(self.images)

    def run_folder(self) -> Path:
        """Return a new folder for the logs of one training run."""
        self._runs += 1
        return self.folder / f'run_{self._runs:02d}'


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    total = Budget(
        60 * args.minutes - seconds_running() if args.minutes else math.inf
    )
    console, failed = Console(), False
    with tempfile.TemporaryDirectory() as folder:
        try:
            images, described = choose_images(
                args.images, Path(folder) / 'images'
            )
        except FileNotFoundError as error:
            print(f'error: {error}', file=sys.stderr)
            return 1
        settings = Settings(
            device=args.device,
            images=images,
            folder=Path(folder),
            workers=args.workers,
            quick=args.quick,
            batch=args.batch,
        )
        report = dict(
            date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
            device=args.device,
            options=dict(
                cases=args.cases,
                workers=args.workers,
                quick=args.quick,
                batch=args.batch,
                minutes=args.minutes,
            ),
            images=described,
            threads=torch.get_num_threads(),
            **describe_environment(),
        )
        for index, name in enumerate(args.cases):
            # Waiting for other processes is no time of a case.
            later = 0 if turns.are_taken() else len(args.cases) - index - 1
            settings.budget = total.share(1 + later)

            def save(result: dict[str, Any], name: str = name) -> None:
                report[name] = result
                write_json(args.out, report)

            settings.save = save
            with console.status(f'case {name}'):
                result = run_case(name, settings, report)
            # After each case too, so that a later failure loses nothing.
            save(result)
            free_memory(args.device)
            print_ratios(console, name, result)
            print_left_out(console, name, result)
            failed |= any(
                reason.startswith(FAILED)
                for reason in result.get('left_out', {}).values()
            )
    console.print(f'Results: {os.path.relpath(args.out)}')
    return int(failed)


def seconds_running() -> float:
    """Return how long this process exists; imports take up to a minute."""
    try:
        # Field 22, in clock ticks since boot; the name of the program before
        # may have blanks.
        fields = Path('/proc/self/stat').read_text().rpartition(')')[2]
        began = int(fields.split()[19]) / os.sysconf('SC_CLK_TCK')
        return float(Path('/proc/uptime').read_text().split()[0]) - began
    except OSError:  # no Linux
        return 0.0


def run_case(name: str, settings: Settings, report: dict) -> dict[str, Any]:
    """Run a case within its time; return what it has, and what is left out.

    Args:
        name (str): Of the case.
        settings (Settings): Options, with the budget of this case.
        report (dict): Has what the case saved, if it is cut off.
    """
    start, load = time.monotonic(), os.getloadavg()[0]
    why = None
    # Cases mind their budget; some have parts that cannot.
    guard = Budget(settings.budget.left() + GRACE)
    try:
        if settings.budget.left() <= 0:
            raise OutOfTime
        with guard.limit():
            result = CASES[name](settings)
    except OutOfTime:
        why = 'no time was left'
    except Exception as error:  # the other cases go on
        traceback.print_exc()
        why = f'{FAILED}{error}'[:2000]
    if why:
        result = dict(ratios={}) | report.get(name, {})
        result['left_out'] = result.get('left_out', {}) | {name: why}
    return result | dict(
        seconds_taken=round(time.monotonic() - start, 1),
        # More than the threads in use: the machine was not idle.
        load_average=[round(x, 2) for x in (load, os.getloadavg()[0])],
    )


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.speed',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='docs/benchmarks/README.md describes the cases.',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.json')
    parser.add_argument(
        '--device',
        choices=['cpu', 'cuda'],
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help="default: %(default)s; shapes other than the head's are small "
        'on a CPU',
    )
    parser.add_argument(
        '--cases',
        default=','.join(CASES),
        help='comma-separated (default: %(default)s)',
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help=f'folder of JPEG photographs (default: ${ENVIRONMENT}, or '
        'synthetic images)',
    )
    parser.add_argument(
        '--workers',
        type=int,
        help='data loader processes of end2end (default: 1 on a CPU, 16 on a '
        'GPU)',
    )
    parser.add_argument(
        '--batch',
        type=read_numbers,
        metavar='N[,N...]',
        help='images per training step; several for the case step (default: '
        '32,256 on a GPU)',
    )
    parser.add_argument(
        '--minutes',
        type=float,
        help='stop after this time, start-up and compilation included: cases '
        'share it, and measure fewer rounds and contestants',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='reduce everything, to see that it works; the numbers mean '
        'nothing',
    )
    args = parser.parse_args(argv)
    args.cases = args.cases.split(',')
    unknown = sorted(set(args.cases) - set(CASES))
    if unknown:
        parser.error(
            f'--cases: unknown {", ".join(unknown)}; choose from '
            f'{", ".join(CASES)}'
        )
    if args.out.suffix != '.json':
        parser.error(f'--out must end with .json, got {args.out}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda, but torch finds no CUDA device')
    if args.workers is None:
        args.workers = 16 if args.device == 'cuda' else 1
    if args.workers < 1:
        parser.error(f'--workers must be at least 1, got {args.workers}')
    if args.minutes is not None and not args.minutes > 0:
        parser.error(f'--minutes must be positive, got {args.minutes}')
    return args


def read_numbers(text: str) -> list[int]:
    """Read '32,256'."""
    numbers = [int(part) for part in text.split(',')]
    if min(numbers) < 2:
        raise argparse.ArgumentTypeError('must be at least 2 images')
    return numbers


def print_ratios(console: Console, name: str, result: dict[str, Any]) -> None:
    """Print the ratios of a case as a table."""
    rows = []
    for key in ('ratios', 'memory_ratios'):
        for what, value in result.get(key, {}).items():
            if isinstance(value, dict):
                value = '{median:.3g} ({q1:.3g} ... {q3:.3g})'.format(**value)
            rows.append((what, str(value), key.removesuffix('_ratios')))
    print_table(console, name, ('ratio', 'value', ''), rows)


def print_left_out(
    console: Console, name: str, result: dict[str, Any]
) -> None:
    """Print what a case has left out."""
    for what, why in result.get('left_out', {}).items():
        console.print(f'{name}: left out: {what}: {why}', markup=False)


if __name__ == '__main__':
    sys.exit(main())
