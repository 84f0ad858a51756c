"""A soak's results as tables and as JSON."""

from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.gpu_check.environment import (
    describe_commit,
    describe_hardware,
    describe_versions,
)
from mmunimoco.utils.tables import print_table

from .plan import STOPS, WORDS
from .record import Record
from .soak import Soak
from .verdict import Check


def build_results(
    soak: Soak, record: Record, checks: list[Check]
) -> dict[str, Any]:
    """Put the JSON together.

    Args:
        soak (Soak): With its settings, its plan and the memory.
        record (Record): What happened.
        checks (list[Check]): The verdict.
    """
    settings = soak.settings
    date = datetime.now(timezone.utc).isoformat(timespec='seconds')
    return dict(
        passed=all(check.passed for check in checks),
        verdict=[asdict(check) for check in checks],
        restarts=len(record.starts) - 1,
        faults_by_kind=count_kinds(record),
        date=date,
        minutes=dict(
            asked_for=None if settings.plan else settings.minutes,
            taken=round(soak.seconds / 60, 2),
        ),
        costs=asdict(soak.costs) if soak.costs else None,
        git=describe_commit(settings.root),
        versions=describe_versions(),
        machine=describe_hardware('cpu'),
        plan=soak.plan.as_dict(),
        record=record.as_dict(),
        memory_samples=soak.samples,
    )


def count_kinds(record: Record) -> dict[str, int]:
    """How often each kind of fault and of damage came about."""
    kinds = [fault.kind for fault in record.faults if fault.had_effect]
    kinds += [fault.damage for fault in record.faults if fault.damage]
    return {kind: kinds.count(kind) for kind in WORDS}


def fault_rows(record: Record) -> list[tuple[str, ...]]:
    """Rows of the table of faults.

    Returns:
        list[tuple[str, ...]]: Step, fault, damage, what was lost and at most
        may be, and where the run went on.
    """
    rows = []
    for fault in record.faults:
        after = record.starts[fault.start + 1 : fault.start + 2]
        stops = fault.kind in STOPS and after
        rows.append(
            (
                WORDS[fault.kind],
                str(fault.step),
                WORDS[fault.damage] if fault.damage else '',
                f'{fault.lost} of {fault.bound}' if stops else '-',
                str(after[0].first) if stops else '-',
            )
        )
    return rows


def print_results(
    console: Console, record: Record, checks: list[Check]
) -> None:
    """Print faults and verdict.

    Args:
        console (Console): Where to.
        record (Record): What happened.
        checks (list[Check]): The verdict.
    """
    columns = ('Fault', 'at step', 'then', 'steps lost', 'went on at')
    print_table(console, 'Faults', columns, fault_rows(record))
    table = Table(title='Verdict', show_header=False)
    for check in checks:
        word = '[green]yes[/]' if check.passed else '[bold red]NO[/]'
        table.add_row(word, check.name, escape(check.detail))
    console.print(table)
