"""Run the cases of the benchmark, one after the other, and report."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.gpu_check.environment import (
    describe_commit,
    describe_hardware,
    describe_versions,
)
from mmunimoco.utils.atomic import write_json
from mmunimoco.utils.progress import ProgressDisplay
from mmunimoco.utils.tables import print_table

from .case import Case, Settings
from .plots import plot_cases

# In the order in which they run.
NAMES = ('head', 'step', 'input', 'end2end', 'shuffle', 'scaling')
COLUMNS = ('case', 'what', 'ours', 'other', 'ratio')


def load_cases(names: list[str]) -> list[Case]:
    """Find cases by name, in the order of :data:`NAMES`.

    Raises:
        ValueError: If there is no such case.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ValueError(
            f'--cases: there is no {", ".join(unknown)}; choose from '
            f'{", ".join(NAMES)}'
        )
    return [
        import_module(f'.{name}_case', __package__).CASE
        for name in NAMES
        if name in names
    ]


def run_cases(
    cases: list[Case],
    settings: Settings,
    out: Path,
    header: dict[str, Any],
    console: Console,
) -> dict[str, Any]:
    """Run cases; write JSON and plot, print the table.

    The JSON is written anew after each case, so that what was measured stays
    if a later one fails.

    Args:
        cases (list[Case]): What to run.
        settings (Settings): What the user chose.
        out (Path): The JSON; the plot goes beside it.
        header (dict): Goes on top of the JSON.
        console (Console): Bound to the terminal.

    Returns:
        dict: What stands in the JSON.
    """
    display = ProgressDisplay(console)
    titles = {case.name: case.title for case in cases}
    weights = {case.name: case.seconds[settings.device] for case in cases}
    results = {}
    report = dict(header)
    with display.plan(titles, weights, jobs=1):
        for case in cases:
            display.begin(case.name)
            with _quiet(settings.folder / 'log.txt'):
                load = load_average()
                result = case.run(settings, _teller(display, case.name))
            display.complete(case.name)
            result['load_average'] = [load, load_average()]
            results[case.name] = result
            report = make_report(header, cases, results)
            write_json(out, report)
    out.with_suffix('.png').write_bytes(plot_cases(cases, results))
    print_table(
        console,
        f'Speed on {settings.device}',
        COLUMNS,
        [
            (case.name if not index else '', *row)
            for case in cases
            for index, row in enumerate(case.rows(results[case.name]))
        ],
    )
    for key, value in headlines(cases, results).items():
        display.say(f'{key} = {json.dumps(value)}')
    display.say(f'Report: {os.path.relpath(out)} (plot: the .png beside it)')
    return report


def make_report(
    header: dict[str, Any], cases: list[Case], results: dict[str, dict]
) -> dict[str, Any]:
    """Put the JSON together: headlines, header, results by case."""
    date = datetime.now(timezone.utc).isoformat(timespec='seconds')
    return dict(headlines(cases, results), date=date, **header, **results)


def headlines(cases: list[Case], results: dict[str, dict]) -> dict[str, Any]:
    """The figures that the goals are about, as 'case.key'."""
    return {
        f'{case.name}.{key}': results[case.name][key]
        for case in cases
        if case.name in results
        for key in case.headlines
    }


def describe_run(
    settings: Settings, images: str, options: dict[str, Any], root: Path
) -> dict[str, Any]:
    """What the results were measured on and with.

    Args:
        settings (Settings): What the user chose.
        images (str): What the images are; their folder stays out of it.
        options (dict): Of the command line.
        root (Path): The checkout.
    """
    return dict(
        device=settings.device,
        options=options,
        images=images,
        threads=torch.get_num_threads(),
        git=describe_commit(root),
        versions=describe_versions(),
        machine=describe_hardware(settings.device),
    )


def load_average() -> float | None:
    """Processes that wanted to run in the last minute, on average.

    What the machine does besides shows here; None where it is unknown.
    """
    return round(os.getloadavg()[0], 2) if hasattr(os, 'getloadavg') else None


def _teller(
    display: ProgressDisplay, name: str
) -> Callable[[float, str], None]:
    def tell(fraction: float, text: str) -> None:
        display.update(name, fraction, text)
        display.refresh()

    return tell


@contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send what is printed to the end of a file: only progress is shown."""
    with open(log, 'a') as file, redirect_stdout(file), redirect_stderr(file):
        yield
