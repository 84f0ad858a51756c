"""The results as a table, for the terminal and for the reports."""

import os
from pathlib import Path

from rich.console import Console

from mmunimoco.utils.estimate import format_duration
from mmunimoco.utils.tables import print_table

from .summary import TRANSFER_METRICS, expectations

COLUMNS = ('Pre-training', 'kNN top-1', 'Linear top-1', 'Epochs', 'Time')
TRANSFER_COLUMNS = ('Pre-training', *(m[0] for m in TRANSFER_METRICS))
QUICK_NOTE = (
    'Reduced run (--quick): it shows that everything works; its numbers mean '
    'nothing.'
)


def ratio_name(label_ratio: float | None) -> str:
    """Name for readers: '10 % labels', or 'none (random weights)'."""
    if label_ratio is None:
        return 'none (random weights)'
    return f'{100 * label_ratio:g} % labels'


def result_rows(summary: dict) -> list[tuple[str, ...]]:
    """Rows of the table of results.

    Args:
        summary (dict): From :func:`build_summary`.

    Returns:
        list[tuple[str, ...]]: One text for each of ``COLUMNS``.
    """
    random = summary['random_init']
    rows = [(ratio_name(None), *_accuracies(random), '-', '-')]
    for entry in summary['pretrain']:
        rows.append(
            (
                ratio_name(entry['label_ratio']),
                *_accuracies(entry),
                str(entry['epochs']),
                format_duration(entry['seconds']),
            )
        )
    return rows


def transfer_rows(summary: dict) -> list[tuple[str, ...]]:
    """Rows of the table of transfer.

    Args:
        summary (dict): From :func:`build_summary`.

    Returns:
        list[tuple[str, ...]]: One text for each of ``TRANSFER_COLUMNS``;
        empty if there was no transfer.
    """
    if 'detection' not in summary:
        return []
    ratios = [None, *(entry['label_ratio'] for entry in summary['pretrain'])]
    return [
        (
            ratio_name(ratio),
            *(
                f'{summary[task][index][key]:.1f} %'
                for _, task, key in TRANSFER_METRICS
            ),
        )
        for index, ratio in enumerate(ratios)
    ]


def finding_lines(summary: dict) -> list[str]:
    """Whether the run is as expected, in sentences."""
    if summary['quick']:
        return [QUICK_NOTE]
    return [
        f'{"as expected" if held else "NOT AS EXPECTED"}: {text}'
        for text, held in expectations(summary)
    ]


def print_results(console: Console, summary: dict, work_dir: Path) -> None:
    """Show the results and say where the report is.

    Args:
        console (Console): Where to.
        summary (dict): From :func:`build_summary`.
        work_dir (Path): Folder of the report.
    """
    title = f'UniMoCo on Fashion-MNIST, seed {summary["seed"]}'
    print_table(console, title, COLUMNS, result_rows(summary))
    transfer = transfer_rows(summary)
    if transfer:
        title = 'Transfer to scenes: detection and segmentation'
        print_table(console, title, TRANSFER_COLUMNS, transfer)
    for line in finding_lines(summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    report = os.path.relpath(work_dir / 'report.html')
    console.print(
        f'Report: {report} (also report.md, summary.json)',
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _accuracies(entry: dict) -> tuple[str, str]:
    return f'{entry["knn_top1"]:.1f} %', f'{entry["linear_top1"]:.1f} %'
