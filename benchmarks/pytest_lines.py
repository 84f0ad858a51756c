"""Pytest plugin that keeps the result of a test as soon as it is known.

``-p benchmarks.pytest_lines --lines FILE.jsonl`` appends one JSON object per
test, so a run that is cut off loses nothing.
"""

import json
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--lines', metavar='FILE.jsonl')


def pytest_collection_finish(session: pytest.Session) -> None:
    _append(session.config, dict(selected=len(session.items)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    outcome = yield
    report = outcome.get_result()
    # Setup and teardown count only if they decide the outcome.
    if report.when == 'call' or not report.passed:
        _append(
            item.config,
            dict(
                test=item.nodeid,
                outcome=report.outcome,
                seconds=round(report.duration, 2),
                measured=dict(item.user_properties),
                message='' if report.passed else report.longreprtext[-2000:],
            ),
        )


def _append(config: pytest.Config, line: dict[str, Any]) -> None:
    path = config.getoption('--lines')
    if path:
        with open(path, 'a') as file:
            file.write(json.dumps(line) + '\n')
