"""The part that runs tests, and what their report file says."""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from .part import Outcome

REPORT = 'junit.xml'


def pytest_command(
    marker: str, paths: tuple[str, ...], folder: Path
) -> list[str]:
    """Return the command that runs the tests with a marker.

    Args:
        marker (str): Expression for ``pytest -m``.
        paths (tuple[str]): Files and folders of tests.
        folder (Path): Where the report goes.
    """
    return [
        *(sys.executable, '-m', 'pytest', '-m', marker, *paths),
        # A module that cannot be imported must not stop the others.
        *('-q', '--tb=short', '--continue-on-collection-errors'),
        *('--durations=10', f'--junitxml={folder / REPORT}'),
        # The checkout may be read-only.
        *('-p', 'no:cacheprovider', f'--basetemp={folder / "tmp"}'),
    ]


def read_pytest(folder: Path) -> Outcome:
    """Read the report of :func:`pytest_command`.

    Args:
        folder (Path): Its folder.

    Returns:
        Outcome: ``results`` has the number of tests by outcome, what is
        wrong with each that failed, why tests were skipped, and the numbers
        that tests recorded (``record_property``), by test.
    """
    path = folder / REPORT
    if not path.is_file():
        return Outcome(faults=['pytest wrote no report'])
    counts, failures, skips, measured = Counter(), {}, Counter(), {}
    for case in ElementTree.parse(path).iter('testcase'):
        name = f'{case.get("classname")}::{case.get("name")}'
        kind, message = _case_outcome(case)
        counts[kind] += 1
        if kind == 'failed':
            failures[name] = message
        elif kind == 'skipped':
            skips[message] += 1
        numbers = {
            p.get('name'): _number(p.get('value'))
            for p in case.iter('property')
        }
        if numbers:
            measured[name] = numbers
    counts = {k: counts[k] for k in ('passed', 'failed', 'skipped')}
    results = dict(
        counts=counts,
        failures=failures,
        skip_reasons=dict(skips),
        measured=measured,
    )
    faults = []
    if failures:
        faults.append(f'{len(failures)} tests failed')
    if not counts['passed']:
        faults.append('no test passed')
    summary = ', '.join(f'{n} {kind}' for kind, n in counts.items() if n)
    return Outcome(results, faults, summary)


def _case_outcome(case: ElementTree.Element) -> tuple[str, str]:
    for tag, kind in dict(
        failure='failed', error='failed', skipped='skipped'
    ).items():
        found = case.find(tag)
        if found is not None:
            message = (found.get('message') or found.text or '').strip()
            return kind, message[:500]
    return 'passed', ''


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
