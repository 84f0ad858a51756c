"""``tools/study.py``."""

import argparse
import logging
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from mmengine.logging import MMLogger
from rich.console import Console

from mmunimoco.engine.checks.work_folder import lock_folder
from mmunimoco.utils.versions import describe_environment

from .compare import records_of
from .plan import Job, plan_jobs
from .pool import Options, Pool
from .progress import Display, plan_table
from .records import Results
from .report import write_report
from .spec import Study, read_study

FAILED, INTERRUPTED = 1, 130
_EPILOG = (
    'Finished runs are skipped, interrupted ones continue, failed ones are '
    'tried again: after Ctrl-C, a crash or a reboot give the same command. '
    '"study.py compare RUN RUN ..." reports on any work folders. See '
    'docs/studies.md.'
)


def main(arguments: Sequence[str]) -> int:
    """Run the tool.

    Args:
        arguments (Sequence[str]): The command line without the script.

    Returns:
        int: Exit status: 1 if a run failed or the command is wrong, 130
        after an interruption.
    """
    console = Console()
    command = _compare if list(arguments[:1]) == ['compare'] else _study
    try:
        return command(arguments, console)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        console.print(f'error: {error}', highlight=False, markup=False)
        return FAILED


def _study(arguments: Sequence[str], console: Console) -> int:
    args = _parse(arguments)
    study = read_study(args.study)
    # Datasets are built for the plan; what they log, the runs log too.
    MMLogger.get_instance('study').setLevel(logging.ERROR)
    work_dir = (args.work_dir or Path('work_dirs') / study.path.stem).resolve()
    if args.dry_run or args.report:
        return _plan_or_report(study, work_dir, args, console)
    # Fails if another command runs this study.
    lock = lock_folder(work_dir)
    with lock or nullcontext():
        return _run(study, work_dir, args, console)


def _plan_or_report(
    study: Study, work_dir: Path, args: argparse.Namespace, console: Console
) -> int:
    results = Results(work_dir / 'results.jsonl')
    jobs = plan_jobs(study, work_dir, results, args.any_code)
    if args.report:
        _report(study, jobs, results, work_dir, console)
    else:
        _print_plan(jobs, results, study, console)
    return 0


def _run(
    study: Study, work_dir: Path, args: argparse.Namespace, console: Console
) -> int:
    results = Results(work_dir / 'results.jsonl')
    jobs = plan_jobs(study, work_dir, results, args.any_code)
    _print_plan(jobs, results, study, console)
    failed: list[Job] = []
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Display(console, jobs, results, study.gpus) as display:
            pool = Pool(
                *(jobs, results, _options(args, study), display),
                *(describe_environment(), work_dir),
            )
            failed = pool.run()
    except KeyboardInterrupt:
        console.print('Interrupted: the same command continues.')
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)
        _report(study, jobs, results, work_dir, console)
    if failed:
        console.print(
            f'{len(failed)} of {len(jobs)} runs have no result, see '
            '"Failed runs" in the report. The same command tries them again.',
            highlight=False,
        )
    return FAILED if failed else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM stops a study as Ctrl-C does."""
    raise KeyboardInterrupt


def _print_plan(
    jobs: list[Job], results: Results, study: Study, console: Console
) -> None:
    table, cost = plan_table(jobs, results, study.gpus)
    console.print(table)
    console.print(cost, highlight=False)


def _report(
    study: Study,
    jobs: list[Job],
    results: Results,
    work_dir: Path,
    console: Console,
) -> None:
    latest = results.latest
    # What is shown, and how, is what the file says today.
    records = [
        latest[job.key]
        | dict(
            protocol=latest[job.key]['protocol'] | _shown(job),
            series=job.variant.series,
        )
        for job in jobs
        if job.key in latest
    ]
    if records:
        page = write_report(work_dir, study.title, records, study.published)
        _print_path(console, page)


def _shown(job: Job) -> dict:
    keys = ('metrics', 'lower_is_better', 'scale')
    return {key: job.settings[key] for key in keys if key in job.settings}


def _print_path(console: Console, page: Path) -> None:
    console.print(
        f'Report: {page} (also report.md, results.csv, results.tex)',
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _options(args: argparse.Namespace, study: Study) -> Options:
    devices = tuple(filter(None, (args.devices or '').split(',')))
    if devices and len(devices) < study.gpus:
        raise ValueError(
            f'gpus = {study.gpus} in the study file, but --devices names '
            f'only {", ".join(devices)}'
        )
    parallel = args.parallel or max(1, len(devices) // study.gpus)
    slurm = None
    if args.launcher == 'slurm':
        slurm = args.slurm_args or ''
    return Options(parallel, devices, study.gpus, slurm, args.grace)


def _compare(arguments: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser(
        prog='study.py compare',
        description='Report on any work folders of mmengine.',
    )
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='RUN',
        help='a work folder, or NAME=FOLDER; runs of one name are seeds',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/compare'),
        help='folder of the report (default: %(default)s)',
    )
    args = parser.parse_args(list(arguments[1:]))
    folder = args.work_dir.resolve()
    records = records_of(args.runs, folder)
    title = f'Comparison of {len(records)} runs'
    _print_path(console, write_report(folder, title, records))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='study.py',
        description='Run all variants, seeds and evaluations of a study file.',
        epilog=_EPILOG,
    )
    parser.add_argument('study', help='the study file')
    parser.add_argument(
        '--dry-run', action='store_true', help='print the plan and its cost'
    )
    parser.add_argument(
        '--report',
        action='store_true',
        help='write the report of what is finished, also while it runs',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder of all output (default: work_dirs/NAME_OF_THE_FILE)',
    )
    parser.add_argument(
        '--parallel',
        type=_positive,
        metavar='N',
        help='runs at a time (default: as many as --devices allow, else 1)',
    )
    parser.add_argument(
        '--devices', metavar='0,1', help='GPUs to share among the runs'
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'slurm'),
        default='none',
        help='slurm: start each run by srun',
    )
    parser.add_argument(
        '--slurm-args',
        metavar='"..."',
        help='options of srun, such as "--partition=gpu --time=8:00:00"; '
        'with a blank or as --slurm-args="..."',
    )
    parser.add_argument(
        '--any-code',
        action='store_true',
        help='runs of other versions of the code count too',
    )
    parser.add_argument(
        '--grace',
        type=float,
        default=120.0,
        help='seconds in which runs may save when the study is stopped '
        '(default: 120)',
    )
    return parser.parse_args(list(arguments))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be 1 or more, got {value}')
    return value
