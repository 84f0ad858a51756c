"""Check within a minute whether a pre-training config can run here.

    mmunimoco check configs/demo/unimoco_resnet18_fmnist.py
    python tools/misc/verify_setup.py configs/demo/unimoco_resnet18_fmnist.py

Loads images, counts labels, compares settings with the data, trains for one
step, writes one checkpoint and compares memory and disk space with what the
run needs. Prints a table of what was found and what to change; the exit status
is 1 if there is a problem, 0 if there are at most warnings.
"""

from argparse import ArgumentParser, Namespace

from mmengine.config import DictAction
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmunimoco.setup_check import Finding, verify_setup


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='output folder of the run')
    parser.add_argument(
        '--processes',
        type=int,
        default=1,
        help='with how many processes (GPUs) the run will start, default 1',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value',
    )


def print_findings(console: Console, findings: list[Finding]) -> None:
    table = Table()
    for column in ('Check', 'State', 'Found'):
        table.add_column(column, overflow='fold')
    states = {True: 'OK', False: 'PROBLEM', None: 'skipped'}
    for finding in findings:
        state = 'WARNING' if finding.warning else states[finding.ok]
        text = escape(finding.text)
        if finding.fix:
            text += f'\nFix: {escape(finding.fix)}'
        table.add_row(finding.name, state, text)
    console.print(table)


def main(args: Namespace) -> int:
    """Run the command, and return its exit status.

    Raises:
        ValueError: If there are no processes.
    """
    if args.processes < 1:
        raise ValueError(
            f'--processes must be at least 1, got {args.processes}'
        )
    findings = verify_setup(
        args.config, args.cfg_options, args.work_dir, args.processes
    )
    print_findings(Console(), findings)
    problems = [finding.name for finding in findings if finding.ok is False]
    if problems:
        print(f'Problems: {", ".join(problems)}')
        return 1
    warnings = [finding.name for finding in findings if finding.warning]
    if warnings:
        print(f'No problem, but warnings: {", ".join(warnings)}')
    else:
        print('No problem found.')
    return 0
