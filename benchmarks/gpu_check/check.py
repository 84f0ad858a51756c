"""Run every part, write one JSON file, print one table."""

import json
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .part import Part, PartResult, run_part

STYLES = dict(passed='green', failed='bold red', skipped='yellow')


def run_check(
    parts: list[Part],
    header: dict[str, Any],
    out: Path,
    folder: Path,
    cwd: Path,
    console: Console,
) -> int:
    """Run all parts, whatever becomes of them, and report.

    The file is written anew after each part, so that what was measured stays
    when the machine goes.

    Args:
        parts (list[Part]): What to run, in order.
        header (dict): What stands on top of the report.
        out (Path): The JSON file.
        folder (Path): Each part writes to its own folder in it.
        cwd (Path): Where the commands run.
        console (Console): Where progress and the table are printed.

    Returns:
        int: 0 if no part failed, else 1.
    """
    start = time.monotonic()
    results = [
        PartResult(part.name, part.title, 'skipped', 'not reached')
        for part in parts
    ]
    for i, part in enumerate(parts):
        place = f'[{i + 1}/{len(parts)}] {part.title}'
        if part.command is not None:
            _say(console, f'{place}, at most {part.limit:g} s')
        with console.status(escape(place)):
            results[i] = run_part(part, folder / part.name, cwd)
        _print_result(results[i], console)
        report = make_report(header, results, time.monotonic() - start)
        write_report(report, out)
    console.print(make_table(results))
    for line in report['skipped']:
        _say(console, f'skipped: {line}')
    _say(console, f'{report["status"]}: {out}')
    return int(report['status'] == 'failed')


def make_report(
    header: dict[str, Any], results: list[PartResult], seconds: float
) -> dict[str, Any]:
    """Put the report together.

    Args:
        header (dict): What stands on top.
        results (list[PartResult]): Result of each part.
        seconds (float): How long it all took.

    Returns:
        dict: ``status`` ('failed' if a part failed, else 'passed'), ``date``
        (UTC), ``seconds``, the header, ``skipped`` (one line for each part
        or test that did not run) and ``parts``.
    """
    failed = any(result.status == 'failed' for result in results)
    return dict(
        status='failed' if failed else 'passed',
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        seconds=round(seconds, 1),
        **header,
        skipped=list_skipped(results),
        parts=[asdict(result) for result in results],
    )


def list_skipped(results: list[PartResult]) -> list[str]:
    """Say in one line each what did not run, and why."""
    lines = []
    for result in results:
        if result.status == 'skipped':
            lines.append(f'{result.name} ({result.title}): {result.reason}')
        for reason, count in result.results.get('skip_reasons', {}).items():
            lines.append(f'{count} tests of {result.name}: {reason}')
        for case in result.results.get('cases', []):
            if case['status'] == 'skipped':
                lines.append(
                    f'{result.name}, batch {case["batch_size"]} '
                    f'{case["precision"]}: {case["reason"]}'
                )
    return lines


def write_report(report: dict[str, Any], out: Path) -> None:
    """Write the report so that no half of a file is ever seen."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f'{out.name}.part')
    draft.write_text(json.dumps(report, indent=2) + '\n')
    draft.replace(out)


def make_table(results: list[PartResult]) -> Table:
    """Draw the parts as a table."""
    table = Table('part', 'status', 'seconds', 'result', title='GPU check')
    for result in results:
        style = STYLES[result.status]
        table.add_row(
            result.name,
            f'[{style}]{result.status}[/]',
            f'{result.seconds:.1f}' if result.limit else '',
            escape('\n'.join(filter(None, [result.summary, result.reason]))),
        )
    return table


def _print_result(result: PartResult, console: Console) -> None:
    if result.status == 'failed':
        for line in result.log_tail:
            _say(console, f'    {line}')
        _say(console, f'  FAILED: {result.reason}')
    elif result.status == 'passed':
        _say(console, f'  passed in {result.seconds} s')


def _say(console: Console, line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
