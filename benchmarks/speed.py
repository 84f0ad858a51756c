"""Measure the speed of mmunimoco side by side with what it is compared with.

python -m benchmarks.speed --out work_dirs/speed.json
"""

import argparse
import os
import sys
import tempfile
import time
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

from .head import head
from .images import ENVIRONMENT, choose_images, find_images
from .input_path import input_path
from .shuffle import shuffle
from .step import augment, end2end, scaling, step
from .tables import print_table
from .trainer import free_memory

# Each takes the settings and returns what goes into the JSON, with its
# results as ``ratios``: name -> median, quartiles and n, or a number.
CASES: dict[str, Callable[['Settings'], dict[str, Any]]] = dict(
    head=head,
    step=step,
    augment=augment,
    input=input_path,
    end2end=end2end,
    shuffle=shuffle,
    scaling=scaling,
)


@dataclass
class Settings:
    """Options of a run.

    Attributes:
        device (str): 'cpu' or 'cuda'.
        images (Path): Folder of photographs.
        folder (Path): For logs and temporary files.
        workers (int): Data loader processes of the case ``end2end``.
        quick (bool): Reduce everything; the numbers then mean nothing.
        batch (int | None): Images per step; None for the device's default.
    """

    device: str
    images: Path
    folder: Path
    workers: int = 1
    quick: bool = False
    batch: int | None = None
    _runs: int = field(default=0, repr=False)

    def rounds(self, count: int) -> int:
        """Return the number of timed rounds: ``count``, or 2 if quick."""
        return min(count, 2) if self.quick else count

    def image_paths(self) -> list[Path]:
        """List the photographs."""
        return find_images(self.images)

    def run_folder(self) -> Path:
        """Return a new folder for the logs of one training run."""
        self._runs += 1
        return self.folder / f'run_{self._runs:02d}'


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    console = Console()
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
            ),
            images=described,
            threads=torch.get_num_threads(),
            **describe_environment(),
        )
        for name in args.cases:
            start, load = time.monotonic(), os.getloadavg()[0]
            with console.status(f'case {name}'):
                result = CASES[name](settings)
            result |= dict(
                seconds_taken=round(time.monotonic() - start, 1),
                # More than the threads in use: the machine was not idle.
                load_average=[round(x, 2) for x in (load, os.getloadavg()[0])],
            )
            report[name] = result
            # After each case, so that a later failure loses nothing.
            write_json(args.out, report)
            free_memory(args.device)
            print_ratios(console, name, result)
    console.print(f'Results: {os.path.relpath(args.out)}')
    return 0


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
    parser.add_argument('--batch', type=int, help='images per training step')
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
    return args


def print_ratios(console: Console, name: str, result: dict[str, Any]) -> None:
    """Print the ratios of a case as a table."""
    rows = []
    for key in ('ratios', 'memory_ratios'):
        for what, value in result.get(key, {}).items():
            if isinstance(value, dict):
                value = '{median:.3g} ({q1:.3g} ... {q3:.3g})'.format(**value)
            rows.append((what, str(value), key.removesuffix('_ratios')))
    print_table(console, name, ('ratio', 'value', ''), rows)


if __name__ == '__main__':
    sys.exit(main())
