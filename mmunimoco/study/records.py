"""Results of a study, and the curves that mmengine logs.

``results.jsonl`` has one JSON object per line and is only appended to: one
``write`` and ``fsync`` per record. A crash can cut off the last line only; it
is ignored, and the next record starts on a line of its own. For a key the
last line counts.
"""

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.text import Text

# Logged beside the metrics of a validation.
_NO_METRIC = ('step', 'time', 'data_time', 'memory', 'epoch', 'iter')
_GPU = re.compile(r'^\s*(GPU [\d,]+): (.+)$', re.MULTILINE)


class Results:
    """The records of a study.

    Args:
        path (Path): ``results.jsonl``; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = list(_json_lines(path)) if path.is_file() else []
        # The record that counts for each key.
        self.latest = {record['key']: record for record in self.records}

    def finished(self, key: str) -> bool:
        """Whether there is a result."""
        record = self.latest.get(key)
        return record is not None and record['status'] == 'done'

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; once this returns, it survives a power failure."""
        data = json.dumps(record, sort_keys=True).encode() + b'\n'
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open('ab+') as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b'\n':  # cut off by a crash
                    data = b'\n' + data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        record = json.loads(data)  # the same as read from the file
        self.records.append(record)
        self.latest[record['key']] = record


def read_curves(folder: Path) -> dict[str, list[list[float]]]:
    """Read the metrics of all validations of a run, from mmengine's logs.

    A resumed run has one log per start; of a validation that was repeated the
    last one counts.

    Args:
        folder (Path): A work folder.

    Returns:
        dict: Metric -> pairs of step and value. Steps are epochs or
        iterations, as the run counts.
    """
    points: dict[str, dict[int, float]] = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in _json_lines(log):
            if 'iter' in line or 'lr' in line:  # of training
                continue
            for name, value in line.items():
                number = type(value) in (int, float)
                if number and name not in _NO_METRIC:
                    points.setdefault(name, {})[line['step']] = value
    return {
        name: [[step, value] for step, value in sorted(curve.items())]
        for name, curve in points.items()
    }


def read_loss(folder: Path) -> list[list[float]]:
    """Read the training loss: pairs of iteration and value, at most 400."""
    points = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in _json_lines(log):
            if 'loss' in line and 'iter' in line:
                points[line['iter']] = line['loss']
    pairs = sorted(points.items())
    every = -(-len(pairs) // 400) or 1
    return [[step, value] for step, value in pairs[::every]]


def read_progress(folder: Path) -> tuple[int, str]:
    """The last logged iteration of a run, and what is known of it."""
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    lines = list(_json_lines(logs[-1], last=4096)) if logs else []
    trained = [line for line in lines if 'iter' in line]
    text = ''
    if trained and 'loss' in trained[-1]:
        text = f'loss {trained[-1]["loss"]:.3f}'
    return (int(trained[-1]['iter']) if trained else 0), text


def summarise(
    curve: Iterable[tuple[float, float]], lower_is_better: bool = False
) -> dict[str, float]:
    """Last and best point of a curve."""
    points = list(curve)
    pick = min if lower_is_better else max
    # NaN compares as neither, so where it stands would matter.
    known = [point for point in points if not math.isnan(point[1])]
    best = pick(known or points, key=lambda point: point[1])
    return dict(
        last=points[-1][1],
        last_step=points[-1][0],
        best=best[1],
        best_step=best[0],
    )


def hardware_of(folder: Path, machine: dict) -> dict:
    """The machine, with the GPUs that the run itself logged."""
    logs = sorted(folder.glob('*/*.log'))
    if not logs:
        return machine
    with logs[-1].open(encoding='utf-8', errors='replace') as file:
        found = dict(_GPU.findall(file.read(20_000)))
    return machine | found


def log_tail(folder: Path) -> list[str]:
    """The last 15 lines that a run printed."""
    path = folder / 'console.log'
    if not path.is_file():
        return []
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        text = file.read().decode(errors='replace')
    text = Text.from_ansi(text).plain  # mmengine colours a terminal
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return lines[-15:]


def _json_lines(path: Path, last: int | None = None) -> Iterable[dict]:
    """The objects of a file, or of its last bytes."""
    with path.open('rb') as file:
        if last is not None:
            file.seek(max(0, path.stat().st_size - last))
        data = file.read()
    for line in data.decode(errors='replace').splitlines():
        try:
            value = json.loads(line)
        except ValueError:  # cut off
            continue
        if isinstance(value, dict):
            yield value
