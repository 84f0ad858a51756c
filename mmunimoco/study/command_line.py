"""``tools/study.py``."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import MMLogger
from rich.console import Console

from .compare import direction_text, records_of
from .plan import plan_jobs
from .pool import Options
from .records import Results
from .report import print_report, write_report
from .run import FAILED, RESULTS, print_plan, report_study, run_study
from .spec import Study, read_study

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
        text = f'error: {error}'
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return FAILED


def _study(arguments: Sequence[str], console: Console) -> int:
    args = _parse(arguments)
    study = read_study(args.study)
    # Datasets are built for the plan; what they log, the runs log too.
    MMLogger.get_instance('study').setLevel(logging.ERROR)
    work_dir = (args.work_dir or Path('work_dirs') / study.path.stem).resolve()
    if not (args.dry_run or args.report):
        return run_study(
            *(study, work_dir, console, _options(args, study)),
            *(args.any_code, args.fresh),
        )
    results = Results(work_dir / RESULTS)
    jobs = plan_jobs(study, work_dir, results, args.any_code)
    if args.report:
        report_study(study, jobs, results, work_dir, console)
    else:
        print_plan(jobs, results, study, console)
    return 0


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
    parser.add_argument(
        '--lower-is-better',
        nargs='+',
        default=[],
        metavar='METRIC',
        help='logged metrics that are errors; of all others the higher value '
        'is taken as the better one',
    )
    args = parser.parse_args(list(arguments[1:]))
    folder = args.work_dir.resolve()
    lower = list(dict.fromkeys(args.lower_is_better))
    records = records_of(args.runs, folder, lower)
    title = f'Comparison of {len(records)} runs'
    text = direction_text(lower)
    page = write_report(folder, title, records, description=text)
    print_report(console, page, records)
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
        '--fresh', action='store_true', help='remove all earlier runs first'
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
