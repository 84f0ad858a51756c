"""Tables of the docs from records of studies (``results.jsonl``)."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parents[1]


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """Write a table whose first column is text and the others numbers."""
    lines = [columns, ['---', *['--:'] * (len(columns) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def slow_start() -> str:
    """KNN accuracy of the study of the slow start, one option at a time."""
    epochs = (4, 10, 20)
    return markdown(
        ['all labels unless said', *(f'epoch {epoch}' for epoch in epochs)],
        curve_rows('cifar10-cpu/slow_start.jsonl', 'knn/top1', epochs),
    )


def cifar10_cpu() -> str:
    """Shares of labels and losses on 10 000 images of CIFAR-10."""
    columns = {'kNN': 'knn/top1', 'linear': 'top1'}
    return markdown(
        ['pre-training', 'kNN top-1', 'linear probe top-1', 'seeds'],
        score_rows('cifar10-cpu/results.jsonl', list(columns.items())),
    )


def cone() -> str:
    """The small model of the slow start."""
    return markdown(
        ['case', 'steps until it is left', 'similarity of negatives, at most'],
        cone_rows('cifar10-cpu/cone_model.json'),
    )


def read_records(path: str) -> list[dict]:
    """Read the lines of a file in ``docs/benchmarks``."""
    lines = (ROOT / 'docs/benchmarks' / path).read_text().splitlines()
    return [json.loads(line) for line in lines]


def curve_rows(
    path: str, metric: str, epochs: Sequence[int]
) -> list[list[str]]:
    """A metric during pre-training: mean ± std over the seeds of a variant.

    Args:
        path (str): A file in ``docs/benchmarks``.
        metric (str): A metric of the validations.
        epochs (Sequence[int]): After which to show it.

    Returns:
        list[list[str]]: Of each variant its name and a number an epoch.
    """
    curves: dict[str, list[dict]] = {}
    for record in read_records(path):
        points = record.get('curves', {}).get(metric)
        if record['evaluation'] == 'pretrain' and points:
            curves.setdefault(record['variant'], []).append(dict(points))
    return [
        [name, *(spread([run[epoch] for run in runs]) for epoch in epochs)]
        for name, runs in curves.items()
    ]


def score_rows(
    path: str, columns: Sequence[tuple[str, str]]
) -> list[list[str]]:
    """Last scores: mean ± std over the seeds of a variant.

    Args:
        path (str): A file in ``docs/benchmarks``.
        columns (Sequence[tuple[str, str]]): Evaluation and metric of each.

    Returns:
        list[list[str]]: Of each variant its name, a number a column, and the
        number of seeds of the first column.
    """
    scores: dict[str, dict[tuple[str, str], list[float]]] = {}
    for record in read_records(path):
        for name, values in record['metrics'].items():
            column = (record['evaluation'], name)
            if column in columns:
                found = scores.setdefault(record['variant'], {})
                found.setdefault(column, []).append(values['last'])
    return [
        [
            name,
            *(spread(found[c]) if c in found else '' for c in columns),
            str(len(found.get(columns[0], ()))),
        ]
        for name, found in sorted(scores.items())
    ]


def spread(values: Sequence[float]) -> str:
    """Write a mean, and the standard deviation of several values."""
    text = f'{mean(values):.1f}'
    return f'{text} ± {stdev(values):.1f}' if len(values) > 1 else text


def cone_rows(path: str) -> list[list[str]]:
    """Steps in the cone of ``cone_model.py``, and how narrow it was."""
    record = json.loads((ROOT / 'docs/benchmarks' / path).read_text())
    rows = []
    for name, runs in record['cases'].items():
        left = [run['left'] for run in runs]
        steps = f'over {record["steps"]}'
        if None not in left:
            steps = f'{min(left)} to {max(left)}'
        cone = mean(run['cone'] for run in runs)
        rows.append([name, steps, f'{cone:.2f}'])
    return rows
