"""Pre-train on a small data set, evaluate, draw and report.

Runs the study ``demo/study.py`` with one seed.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from mmengine.logging import MMLogger
from rich.console import Console
from threadpoolctl import threadpool_limits

from mmunimoco.study.plan import Job
from mmunimoco.study.pool import Options
from mmunimoco.study.records import Results
from mmunimoco.study.run import FAILED, RESULTS, run_study
from mmunimoco.study.spec import Study, read_study
from mmunimoco.utils.atomic import write_atomic
from mmunimoco.utils.versions import count_cores

from .embedding import draw_embedding
from .figures import figure_png
from .predictions import draw_predictions

ROOT = Path(__file__).resolve().parents[1]
# More runs than these are rarely independent of each other.
MAX_JOBS = 4


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m demo',
        description='Pre-train on a small data set, evaluate, draw, report.',
        epilog='Finished runs are skipped; after Ctrl-C run the same command '
        'again to continue.',
    )
    parser.add_argument(
        '--fresh', action='store_true', help='discard old results, start over'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='a few steps of every run, to see that everything works',
    )
    parser.add_argument(
        '--no-transfer',
        action='store_true',
        help='skip detection and segmentation, which need mmdet and mmseg',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed (default: 0)'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(count_cores(), MAX_JOBS),
        help='runs at a time (default: the number of cores, at most '
        f'{MAX_JOBS})',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder of all output (default: work_dirs/demo, with --quick '
        'work_dirs/demo_quick)',
    )
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f'--seed must be 0 or more, got {args.seed}')
    if args.jobs < 1:
        parser.error(f'--jobs must be 1 or more, got {args.jobs}')
    if args.work_dir is None:
        name = 'demo_quick' if args.quick else 'demo'
        args.work_dir = Path('work_dirs') / name
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    console = Console()
    try:
        study = demo_study(args.quick, args.seed, not args.no_transfer)
        return run_demo(study, args.work_dir, console, args.jobs, args.fresh)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        text = f'demo: {error}'
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return FAILED


def demo_study(
    quick: bool = False, seed: int = 0, transfer: bool = True
) -> Study:
    """The study of a run.

    Args:
        quick (bool): A few steps of every run. Defaults to False.
        seed (int): Seed of everything. Defaults to 0.
        transfer (bool): Whether to fine-tune on detection and segmentation.
            Defaults to True.

    Raises:
        ImportError: If a package that transfer needs is missing.
    """
    if transfer:
        require_transfer()
    path = ROOT / 'demo' / ('quick_study.py' if quick else 'study.py')
    study = replace(read_study(path), seeds=(seed,))
    if transfer:
        return study
    kept = {
        name: settings
        for name, settings in study.evaluations.items()
        if settings['type'] != 'transfer'
    }
    expected = [e for e in study.expectations if e['evaluation'] in kept]
    return replace(
        study, evaluations=kept, expectations=tuple(expected), prepare=()
    )


def require_transfer() -> None:
    """Check that detection and segmentation can run.

    Raises:
        ImportError: If mmdet or mmseg is missing, or mmcv has no compiled
            ops.
    """
    missing = [name for name in ('mmdet', 'mmseg') if find_spec(name) is None]
    # mmcv imports without its ops, which are one extension module.
    if find_spec('mmcv._ext') is None:
        missing.append("mmcv's compiled ops")
    if missing:
        raise ImportError(
            f'detection and segmentation need {", ".join(missing)}, which is '
            'not installed: run tools/install.sh without --no-transfer, or '
            'run the demo with --no-transfer'
        )


def run_demo(
    study: Study,
    work_dir: Path,
    console: Console,
    jobs: int = 1,
    fresh: bool = False,
) -> int:
    """Run what is not finished, then print results and the next commands.

    Args:
        study (Study): From :func:`demo_study`.
        work_dir (Path): Folder of all output.
        console (Console): For progress and results.
        jobs (int): Runs at a time. Defaults to 1.
        fresh (bool): Start over. Defaults to False.

    Returns:
        int: Exit status: 1 if a run failed, 130 after an interruption.

    Raises:
        RuntimeError: If another demo runs in the folder.
    """
    # Datasets are built for the plan; what they log, the runs log too.
    MMLogger.get_instance('demo').setLevel(logging.ERROR)
    work_dir = work_dir.resolve()
    status = run_study(
        *(study, work_dir, console, Options(parallel=jobs)),
        fresh=fresh,
        draw=draw_figures,
    )
    if status == 0:
        console.print(
            'Next, in the folder of the repository:',
            next_commands(work_dir),
            sep='\n',
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return status


def draw_figures(jobs: Sequence[Job], work_dir: Path) -> None:
    """Draw what is missing, or older than the last result.

    Args:
        jobs (Sequence[Job]): All runs, finished, of one seed.
        work_dir (Path): The pictures go to ``figures/`` in it.
    """
    changed = (work_dir / RESULTS).stat().st_mtime
    for name, draw in (
        ('embedding', draw_embedding),
        ('predictions', draw_predictions),
    ):
        path = work_dir / f'figures/{name}.png'
        if path.is_file() and path.stat().st_mtime > changed:
            continue
        # More threads wait for each other longer than they compute.
        with threadpool_limits(1):
            drawn = draw(jobs)
        if drawn is not None:
            write_atomic(path, figure_png(*drawn))


def next_commands(work_dir: Path) -> str:
    """What to try next, as lines for a shell in the repository."""
    runs = Results(work_dir / RESULTS).records
    run = next(
        r
        for r in reversed(runs)
        if (r['variant'], r['evaluation']) == ('100 % labels', 'pretrain')
    )
    last = max((work_dir / run['folder']).glob('epoch_*.pth'), key=_epoch)
    if last.is_relative_to(ROOT):
        last = last.relative_to(ROOT)
    checkpoint, seed = shlex.quote(str(last)), run['seed'] + 1
    return '\n'.join(
        (
            'source .venv/bin/activate',
            '# kNN of the backbone with 100 % labels',
            f'python tools/test.py configs/demo/unimoco_resnet18_fmnist.py '
            f'{checkpoint}',
            '# a linear probe of it',
            'python tools/train.py configs/demo/resnet18_linear_fmnist.py '
            '--cfg-options '
            f'model.backbone.init_cfg.checkpoint={checkpoint}',
            '# the demo with another seed; with three: '
            'python tools/study.py demo/study.py',
            f'bash tools/demo.sh --seed {seed} --work-dir '
            f'work_dirs/demo_seed{seed}',
            '# images of your own: docs/own_data.md',
        )
    )


def _epoch(path: Path) -> int:
    return int(path.stem.removeprefix('epoch_'))


if __name__ == '__main__':
    sys.exit(main())
