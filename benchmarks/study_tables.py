"""Tables of the docs from records of studies (``results.jsonl``)."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from mmunimoco.study.records import Results
from mmunimoco.study.scores import (
    MIN_SEEDS,
    Summary,
    summarise_records,
    welch,
)

ROOT = Path(__file__).resolve().parents[1]
CIFAR10, DEMO = 'cifar10-cpu/results.jsonl', 'demo.jsonl'
CIFAR10_LONG = 'cifar10-cpu/long.jsonl'
# Evaluation and metric -> title of a column.
DEMO_TITLES = {
    ('knn', 'knn/top1'): 'kNN top-1',
    ('linear', 'accuracy/top1'): 'linear probe top-1',
    ('detection', 'coco/bbox_mAP'): 'box AP',
    ('detection', 'coco/segm_mAP'): 'mask AP',
    ('segmentation', 'mIoU'): 'mIoU',
}
CIFAR10_TITLES = {
    ('kNN', 'knn/top1'): 'kNN top-1',
    ('linear', 'top1'): 'linear probe top-1',
    ('detection', 'coco/bbox_mAP'): 'box AP on scenes',
    ('segmentation', 'mIoU'): 'mIoU on scenes',
}
_ALL, _TENTH, _NONE = (f'UniCon, label_ratio={r}' for r in (1.0, 0.1, 0.0))
PAIRS = (
    *((_NONE, 'random weights'), (_TENTH, _NONE), (_ALL, _NONE)),
    *((_ALL, f'SupCon {x}, label_ratio=1.0') for x in ('out', 'in')),
    *((_TENTH, f'SupCon {x}, label_ratio=0.1') for x in ('out', 'in')),
    *(
        (f'UniCon, {x}, label_ratio=0.1', _TENTH)
        for x in ('unlabeled keys ignored', 'balanced own key')
    ),
    ('UniCon, balanced own key, label_ratio=1.0', _ALL),
    (_TENTH, 'cross-entropy, 10 % of the labels'),
    (_ALL, 'cross-entropy, all labels'),
)
_BALANCED = 'UniCon, balanced own key, label_ratio='
LONG_PAIRS = (
    (f'{_BALANCED}0.1', f'{_BALANCED}0.0'),
    (f'{_BALANCED}1.0', f'{_BALANCED}0.0'),
    (f'{_BALANCED}1.0', _ALL),
    *((x, 'SupCon in, label_ratio=1.0') for x in (_ALL, f'{_BALANCED}1.0')),
    (f'{_BALANCED}0.1', 'cross-entropy, 10 % of the labels'),
    (f'{_BALANCED}1.0', 'cross-entropy, all labels'),
)


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


def demo_seeds() -> str:
    """Scores of the demo over three seeds."""
    return _scores(DEMO, DEMO_TITLES)


def demo_classification_by_seed() -> str:
    """KNN and linear probe of the demo, seed by seed."""
    return _by_seed(list(DEMO_TITLES)[:2])


def demo_transfer_by_seed() -> str:
    """Box AP, mask AP and mIoU of the demo, seed by seed."""
    return _by_seed(list(DEMO_TITLES)[2:])


def cifar10_cpu() -> str:
    """Shares of labels and losses on 10 000 images of CIFAR-10."""
    return _scores(CIFAR10, CIFAR10_TITLES)


def cifar10_cpu_curves() -> str:
    """KNN accuracy of the same over the epochs."""
    return _curves(CIFAR10, (2, 4, 10, 20))


def cifar10_cpu_differences() -> str:
    """Differences between two pre-trainings, and whether they are noise."""
    return _differences(CIFAR10, CIFAR10_TITLES, PAIRS)


def cifar10_cpu_long() -> str:
    """Pre-training of 60 epochs: kNN and linear probe at the end."""
    return _scores(CIFAR10_LONG, _without_transfer())


def cifar10_cpu_long_curves() -> str:
    """KNN accuracy of the same over the epochs."""
    return _curves(CIFAR10_LONG, (10, 20, 40, 60))


def cifar10_cpu_long_differences() -> str:
    """Differences between two of these pre-trainings."""
    return _differences(CIFAR10_LONG, _without_transfer(), LONG_PAIRS)


def cifar10_cpu_propagation() -> str:
    """Label propagation, and its difference to none."""
    metrics = _without_transfer()
    summary = summarise_records(read_records('cifar10-cpu/propagation.jsonl'))
    plain, *others = summary.variants
    rows = [[plain, *(_cell(summary, plain, m) for m in metrics), '', '']]
    for name in others:
        scores = [_cell(summary, name, m) for m in metrics]
        more = [difference(summary, name, plain, m) for m in metrics]
        rows.append([name, *scores, *more])
    titles = [f'difference, {title}' for title in metrics.values()]
    return markdown(
        ['pre-training', *metrics.values(), *titles],
        [[_title(name), *cells] for name, *cells in rows],
    )


def cone() -> str:
    """The small model of the slow start."""
    return markdown(
        ['case', 'steps until it is left', 'similarity of negatives, at most'],
        cone_rows('cifar10-cpu/cone_model.json'),
    )


def read_records(path: str) -> list[dict]:
    """Read a file in ``docs/benchmarks``."""
    return Results(ROOT / 'docs/benchmarks' / path).records


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
        points = record['curves'].get(metric)
        if points:
            curves.setdefault(record['variant'], []).append(dict(points))
    return [
        [name, *(spread([run[epoch] for run in runs]) for epoch in epochs)]
        for name, runs in curves.items()
    ]


def _without_transfer() -> dict[tuple[str, str], str]:
    return dict(list(CIFAR10_TITLES.items())[:2])


def _curves(path: str, epochs: Sequence[int]) -> str:
    """KNN accuracy over the epochs, a line a variant."""
    return markdown(
        ['pre-training', *(f'epoch {epoch}' for epoch in epochs)],
        [
            [_title(name), *scores]
            for name, *scores in curve_rows(path, 'knn/top1', epochs)
        ],
    )


def _differences(
    path: str,
    titles: dict[tuple[str, str], str],
    pairs: Sequence[tuple[str, str]],
) -> str:
    """Differences of means with p, a line a pair of variants."""
    summary = summarise_records(read_records(path))
    return markdown(
        ['difference of', *titles.values()],
        [
            [
                f'{_title(first)} to {_title(second)}',
                *(difference(summary, first, second, c) for c in titles),
            ]
            for first, second in pairs
        ],
    )


def _scores(path: str, titles: dict[tuple[str, str], str]) -> str:
    """Mean and standard deviation over seeds, a line a variant."""
    summary = summarise_records(read_records(path))
    return markdown(
        ['pre-training', *titles.values()],
        [
            [_title(name), *(_cell(summary, name, c) for c in titles)]
            for name in summary.variants
        ],
    )


def _by_seed(metrics: Sequence[tuple[str, str]]) -> str:
    """Scores of the demo, a line a seed, metrics separated by slashes."""
    records = read_records(DEMO)
    seeds = sorted({record['seed'] for record in records})
    each = {
        seed: summarise_records([r for r in records if r['seed'] == seed])
        for seed in seeds
    }
    names = [
        name
        for name in each[seeds[0]].variants
        if all(_cell(each[seeds[0]], name, metric) for metric in metrics)
    ]
    return markdown(
        ['seed', *names],
        [
            [
                str(seed),
                *(
                    ' / '.join(_cell(summary, name, m) for m in metrics)
                    for name in names
                ),
            ]
            for seed, summary in each.items()
        ],
    )


def _title(variant: str) -> str:
    """Write a share of labels in percent."""
    return re.sub(
        r'label_ratio=([\d.]+)',
        lambda found: f'{100 * float(found[1]):.0f} % labels',
        variant,
    )


def _values(
    summary: Summary, variant: str, metric: tuple[str, str]
) -> tuple[float, ...]:
    """Last scores, one a seed; none if it was not evaluated."""
    for column in summary.columns:
        if (column.evaluation, column.metric) == metric:
            cell = summary.cells.get((variant, column))
            return cell.values if cell else ()
    return ()


def _cell(summary: Summary, variant: str, metric: tuple[str, str]) -> str:
    values = _values(summary, variant, metric)
    return spread(values) if values else ''


def difference(
    summary: Summary, first: str, second: str, metric: tuple[str, str]
) -> str:
    """Write first - second with p of Welch's t-test; '' for too few seeds."""
    one = _values(summary, first, metric)
    other = _values(summary, second, metric)
    if len(one) < MIN_SEEDS or len(other) < MIN_SEEDS:
        return ''
    text = f'{mean(one) - mean(other):+.1f}'.replace('-', '−')
    p_value = welch(one, other)
    if p_value is None:
        return text
    noise = f'p {p_value:.2f}' if p_value >= 0.01 else 'p < 0.01'
    return f'{text} ({noise})'


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
