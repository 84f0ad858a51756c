"""What was found, and its table."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class SetupError(Exception):
    """Something is wrong, and this is what to do about it.

    Args:
        text (str): What is wrong.
        fix (str): What to change.
    """

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.fix = fix


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name (str): What was checked.
        ok (bool | None): None if it was not tried.
        text (str): What was found.
        fix (str): What to change; empty where nothing is wrong.
    """

    name: str
    ok: bool | None
    text: str
    fix: str = ''


def run_check(name: str, check: Callable[[], str], fix: str) -> Finding:
    """Run a check; whatever it raises is its finding.

    Args:
        name (str): What is checked.
        check (Callable[[], str]): Returns what it found.
        fix (str): What to change if it fails, unless the error says so.

    Returns:
        Finding: Its outcome.
    """
    try:
        return Finding(name, True, check())
    except SetupError as error:
        return Finding(name, False, str(error), error.fix)
    except Exception as error:  # that the user's config leads to
        lines = str(error).strip().splitlines() or ['']
        return Finding(name, False, f'{type(error).__name__}: {lines[0]}', fix)


def print_findings(console: Console, findings: list[Finding]) -> None:
    """Print a table, and below it what to change.

    Args:
        console (Console): Where to.
        findings (list[Finding]): In the order of their checks.
    """
    table = Table()
    for column in ('Check', 'State', 'Found'):
        table.add_column(column, overflow='fold')
    states = {True: 'OK', False: 'PROBLEM', None: 'not tried'}
    for finding in findings:
        text = escape(finding.text)
        if finding.fix:
            text += f'\nFix: {escape(finding.fix)}'
        table.add_row(finding.name, states[finding.ok], text)
    console.print(table)
