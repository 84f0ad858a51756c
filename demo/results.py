"""The numbers of a run: summary, expectations and tables."""

import json
import os
import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .display import format_duration
from .settings import (
    BACKBONES,
    DETECTION_CONFIG,
    LINEAR_CONFIG,
    PRETRAIN_CONFIGS,
    ROOT,
    SEGMENTATION_CONFIG,
    SUPERVISED_CONFIGS,
    DemoSettings,
    backbone_file,
    backbone_name,
    backbone_title,
    supervised_name,
)
from .transfer import TASKS, task_stage_name

# Name for readers -> where it is in the summary.
TRANSFER_METRICS = {
    'Box AP': ('detection', 'bbox_mAP'),
    'Mask AP': ('detection', 'segm_mAP'),
    'mIoU': ('segmentation', 'mIoU'),
}
COLUMNS = ('Pre-training', 'kNN top-1', 'Linear top-1', 'Steps', 'Time')
TRANSFER_COLUMNS = ('Pre-training', *TRANSFER_METRICS)
# How a training ran.
RUN_KEYS = ('epochs', 'steps', 'seconds')
# Runs with three seeds. The later one has no transfer, and newer scores.
SEED_RECORDS = ('demo_seeds.json', 'demo_seeds_exact.json')
QUICK_NOTE = (
    'Reduced run (--quick): it shows that everything works; its numbers mean '
    'nothing.'
)


def build_summary(
    settings: DemoSettings,
    results: dict[str, dict],
    curves: dict[float, dict],
    versions: dict[str, str],
    machine: dict[str, str | int],
) -> dict:
    """Combine the results of all stages.

    Args:
        settings (DemoSettings): The run.
        results (dict[str, dict]): Result of each stage by its name.
        curves (dict[float, dict]): Of each share of labels, from
            :func:`read_curves`.
        versions (dict[str, str]): Versions of the packages.
        machine (dict): Description of the machine.

    Returns:
        dict: Content of ``summary.json``: accuracies, AP (mean over IoU 0.5
        to 0.95) and mIoU in percent, times in seconds. ``detection`` and
        ``segmentation`` are present if the settings ask for transfer.
    """
    summary = dict(
        pretrain=[
            dict(
                label_ratio=ratio,
                **_scores(results, ratio),
                **{
                    key: results[backbone_name(ratio)][key] for key in RUN_KEYS
                },
                config=f'configs/demo/{config}',
                checkpoint=_from_root(backbone_file(settings, ratio)),
                curves=curves[ratio],
            )
            for ratio, config in PRETRAIN_CONFIGS.items()
        ],
        random_init=_scores(results, None),
        supervised=[
            dict(
                label_ratio=ratio,
                **{
                    key: results[supervised_name(ratio)][key]
                    for key in ('knn_top1', 'linear_top1', *RUN_KEYS)
                },
                config=f'configs/demo/{config}',
            )
            for ratio, config in SUPERVISED_CONFIGS.items()
        ],
        total_seconds=_total_seconds(results),
        seed=settings.seed,
        seed_std=_seed_std(),
        quick=settings.quick,
        linear_config=f'configs/demo/{LINEAR_CONFIG}',
        versions=versions,
        machine=machine,
    )
    if settings.transfer:
        summary.update(_transfer(results))
    return summary


def expectations(summary: dict) -> list[tuple[str, bool]]:
    """Sentences on what the method promises, and whether each is met.

    They compare numbers with the decimals that the tables show.
    """
    knn = {e['label_ratio']: e['knn_top1'] for e in summary['pretrain']}
    none, some, full = (round(knn[ratio], 1) for ratio in sorted(knn))
    random = round(summary['random_init']['knn_top1'], 1)
    found = [
        (
            f'kNN without labels is {none - random:.1f} points above random '
            'weights (expected: more than 0).',
            none > random,
        ),
        (
            f'kNN with all labels is {full - none:.1f} points above no labels '
            '(expected: at least 5).',
            round(full - none, 1) >= 5,
        ),
        (
            f'kNN with 10 % of the labels is {some - none:.1f} points above '
            f'no labels and {full - some:.1f} below all labels (expected: in '
            'between).',
            none < some < full,
        ),
    ]
    for name, (task, key) in TRANSFER_METRICS.items():
        if task in summary:
            random, *pretrained = (
                round(entry[key], 1) for entry in summary[task]
            )
            gains = [value - random for value in pretrained]
            text = ', '.join(f'{gain:+.1f}' for gain in gains)
            found.append(
                (
                    f'{name} after pre-training with 0, 10 and 100 % of the '
                    f'labels, relative to random weights: {text} points '
                    '(expected: all above 0).',
                    min(gains) > 0,
                )
            )
    return found


def finding_lines(summary: dict) -> list[str]:
    """One sentence for each expectation with its outcome, then the scatter."""
    if summary['quick']:
        return [QUICK_NOTE]
    return [
        *(
            f'{"as expected" if met else "NOT AS EXPECTED"}: {text}'
            for text, met in expectations(summary)
        ),
        _seed_line(summary),
    ]


def next_commands(summary: dict) -> str:
    """What to try next, as lines for a shell in the repository."""
    full = summary['pretrain'][-1]
    checkpoint = shlex.quote(full['checkpoint'])
    seed = summary['seed'] + 1
    return '\n'.join(
        (
            'source .venv/bin/activate',
            f'# kNN of the backbone with {backbone_title(1.0)}',
            f'python tools/test.py {full["config"]} {checkpoint}',
            '# a linear probe of it',
            f'python tools/train.py {summary["linear_config"]} --cfg-options '
            f'model.backbone.init_cfg.checkpoint={checkpoint}',
            '# the demo with another seed',
            f'bash tools/demo.sh --seed {seed} --work-dir '
            f'work_dirs/demo_seed{seed}',
            '# images of your own: docs/own_data.md',
        )
    )


def _seed_line(summary: dict) -> str:
    """How far the scores of this report scatter, from the least to the most.

    The scatter differs between backbones.
    """
    names = dict(zip(COLUMNS[1:3], ('knn_top1', 'linear_top1'), strict=True))
    for name, (task, key) in TRANSFER_METRICS.items():
        if task in summary:
            names[name] = key
    parts = []
    for name, key in names.items():
        values = [scores[key] for scores in summary['seed_std'].values()]
        parts.append(f'{name} {min(values):.1f} to {max(values):.1f}')
    return (
        'This is one seed, and others give other numbers. Standard deviation '
        f'in points over three recorded seeds: {", ".join(parts)}, depending '
        'on the pre-training. Differences of that size mean nothing.'
    )


def row_name(label_ratio: float | None) -> str:
    """First cell of a row: '10 % labels', or 'none (random weights)'."""
    title = backbone_title(label_ratio)
    return f'none ({title})' if label_ratio is None else title


def result_rows(summary: dict) -> list[tuple[str, ...]]:
    """Rows of the table of results, one text for each of ``COLUMNS``."""
    rows = [(row_name(None), *_percents(summary['random_init']), '-', '-')]
    for kind, title in (('pretrain', ''), ('supervised', 'cross-entropy, ')):
        for entry in summary[kind]:
            time = format_duration(entry['seconds'])
            name = title + row_name(entry['label_ratio'])
            rows.append((name, *_percents(entry), str(entry['steps']), time))
    return rows


def transfer_rows(summary: dict) -> list[tuple[str, ...]]:
    """Rows of the table of transfer; empty without transfer."""
    if 'detection' not in summary:
        return []
    return [
        (
            row_name(ratio),
            *(
                f'{summary[task][index][key]:.1f} %'
                for task, key in TRANSFER_METRICS.values()
            ),
        )
        for index, ratio in enumerate(BACKBONES)
    ]


def print_results(console: Console, summary: dict, work_dir: Path) -> None:
    """Print tables, findings and the path of the report."""
    title = f'UniMoCo on Fashion-MNIST, seed {summary["seed"]}'
    console.print(_table(title, COLUMNS, result_rows(summary)))
    rows = transfer_rows(summary)
    if rows:
        title = 'Transfer to scenes: detection and segmentation'
        console.print(_table(title, TRANSFER_COLUMNS, rows))
    report = os.path.relpath(work_dir / 'report.html')
    for line in (
        *finding_lines(summary),
        f'Report: {report} (also report.md, summary.json)',
        'Backbones: '
        + ', '.join(entry['checkpoint'] for entry in summary['pretrain']),
        'Next, in the folder of the repository:',
        next_commands(summary),
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(title: str, columns: tuple[str, ...], rows: list[tuple]) -> Table:
    table = Table(title=title)
    for index, name in enumerate(columns):
        table.add_column(name, justify='right' if index else 'left')
    for row in rows:
        table.add_row(*row)
    return table


def _percents(entry: dict) -> tuple[str, str]:
    return f'{entry["knn_top1"]:.1f} %', f'{entry["linear_top1"]:.1f} %'


def _scores(
    results: dict[str, dict], label_ratio: float | None
) -> dict[str, float]:
    name = backbone_name(label_ratio)
    return dict(
        knn_top1=results[name]['knn_top1'],
        linear_top1=results[f'{name}-linear']['linear_top1'],
    )


def _seed_std() -> dict[str, dict[str, float]]:
    """Standard deviation of each score over recorded seeds, by row name."""
    found: dict[str, dict[str, float]] = {}
    for name in SEED_RECORDS:
        path = ROOT / 'docs' / 'benchmarks' / name
        for row, scores in json.loads(path.read_text())['std'].items():
            found.setdefault(row, {}).update(scores)
    return found


def _from_root(path: Path) -> str:
    """A path for commands in the folder of the repository."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _total_seconds(results: dict[str, dict]) -> float:
    """Time in which at least one stage ran; several may run at a time."""
    spans = sorted(
        (result['ended'] - result['seconds'], result['ended'])
        for result in results.values()
    )
    total, end_so_far = 0.0, float('-inf')
    for start, end in spans:
        total += max(0.0, end - max(start, end_so_far))
        end_so_far = max(end_so_far, end)
    return round(total, 1)


def _transfer(results: dict[str, dict]) -> dict:
    summary = {}
    for task, definition in TASKS.items():
        summary[task] = []
        for ratio in BACKBONES:
            result = results[task_stage_name(task, ratio)]
            init = 'random' if ratio is None else backbone_name(ratio)
            scores = {key: result[key] for key in definition.metrics}
            summary[task].append(dict(init=init, **scores))
    configs = (DETECTION_CONFIG, SEGMENTATION_CONFIG)
    summary['transfer'] = dict(
        unit='percent',
        scenes={key: results['scenes'][key] for key in ('train', 'val')},
        configs=[f'configs/demo/{name}' for name in configs],
    )
    return summary
