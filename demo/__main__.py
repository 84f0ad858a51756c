"""Pre-train on a small data set, evaluate, draw and report."""

import argparse
import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from mmunimoco.engine.checks.work_folder import lock_folder

from .display import Display
from .pool import StageError, StagePool
from .report_stages import OUTPUT_FILES, TRANSFER_FILES, report_stages
from .results import print_results
from .settings import DemoSettings, require_transfer
from .stages import Stage, training_stages
from .transfer import transfer_stages

# Exit status of a program ended by SIGINT, by convention.
INTERRUPTED = 130


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m demo',
        description=__doc__,
        epilog='Finished stages are skipped; after Ctrl-C run the same '
        'command again to continue.',
    )
    parser.add_argument(
        '--fresh', action='store_true', help='discard old results, start over'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='run all stages for a few steps, to see that everything works',
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
        help='stages that run at a time (default: the number of cores, at '
        'most 4)',
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
    if args.jobs is not None and args.jobs < 1:
        parser.error(f'--jobs must be 1 or more, got {args.jobs}')
    if args.work_dir is None:
        name = 'demo_quick' if args.quick else 'demo'
        args.work_dir = Path('work_dirs') / name
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    settings = DemoSettings(
        args.work_dir,
        seed=args.seed,
        quick=args.quick,
        transfer=not args.no_transfer,
    )
    try:
        return run_demo(settings, Console(), args.fresh, args.jobs)
    except ImportError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1


def run_demo(
    settings: DemoSettings,
    console: Console,
    fresh: bool = False,
    jobs: int | None = None,
) -> int:
    """Run the stages that are not finished, then print the results.

    Args:
        settings (DemoSettings): The run.
        console (Console): For progress and results.
        fresh (bool): Start over. Defaults to False.
        jobs (int, optional): Stages at a time. Defaults to the number of
            cores, at most 4.

    Returns:
        int: Exit status: 1 if a stage failed or another demo runs in the
        folder, 130 after an interruption.

    Raises:
        ImportError: If a package that transfer needs is missing.
    """
    if settings.transfer:
        require_transfer()
    display = Display(console)
    try:
        lock = lock_folder(settings.work_dir)
    except RuntimeError as error:  # another demo has it
        display.say(f'demo: {error}')
        return 1
    # Closed at the end, which lets others in.
    with lock or nullcontext():
        return _run_locked(settings, display, fresh, jobs)


def _run_locked(
    settings: DemoSettings, display: Display, fresh: bool, jobs: int | None
) -> int:
    if fresh:
        _remove_results(settings)
    try:
        stages = plan_stages(settings)
        _print_state(stages, display)
        StagePool(stages, display, jobs).run()
    except KeyboardInterrupt:
        display.say(
            'Interrupted. Only the epochs in progress are lost: run the same '
            'command again to continue.'
        )
        return INTERRUPTED
    except StageError as error:
        display.say(f'demo: {error}')
        return 1
    summary = json.loads((settings.work_dir / 'summary.json').read_text())
    print_results(display.console, summary, settings.work_dir)
    return 0


def plan_stages(settings: DemoSettings) -> list[Stage]:
    """List all stages of a run; each stands behind those that it needs."""
    training = training_stages(settings)
    transfer = transfer_stages(settings, training)
    report = report_stages(settings, training, transfer)
    return [*training, *transfer, *report]


def _remove_results(settings: DemoSettings) -> None:
    """Remove what the demo wrote, and nothing else in the folder."""
    if settings.stages_dir.exists():
        shutil.rmtree(settings.stages_dir)
    for name in (*OUTPUT_FILES, *TRANSFER_FILES):
        (settings.work_dir / name).unlink(missing_ok=True)


def _print_state(stages: list[Stage], display: Display) -> None:
    states = [stage.state for stage in stages]
    if 'finished' in states:
        count = states.count('finished')
        display.say(f'{count} of {len(stages)} stages are finished.')
    for stage, state in zip(stages, states, strict=True):
        if state == 'changed':
            display.say(f'{stage.title}: settings changed, starts over.')


if __name__ == '__main__':
    sys.exit(main())
