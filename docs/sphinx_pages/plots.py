"""Draw the records of ``docs/benchmarks`` as pictures of one page."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from mmunimoco.study.plots import all_plots
from mmunimoco.study.records import Results
from mmunimoco.study.scores import summarise_records


def write_plots(records: Path, folder: Path) -> str:
    """Write pictures, and return the page that shows them.

    Args:
        records (Path): Folder of the JSON files.
        folder (Path): Where page and pictures go.

    Returns:
        str: Markdown.
    """
    speed = json.loads((records / 'speed_cpu.json').read_text())
    _head(speed).savefig(folder / 'plot_head.svg', bbox_inches='tight')
    return (
        '# Benchmarks in pictures\n\n'
        'Drawn from the records when this site is built; '
        '[measured results](../benchmarks/README.md) has the files and how '
        'each was made.\n\n'
        '## The demo: labels and transfer\n\n'
        'A narrow ResNet-18 on 6 000 images of Fashion-MNIST, three seeds, in '
        'percent.\n\n'
        + _study(records / 'demo.jsonl', folder, 'demo')
        + 'See [the demo](configs-demo.md).\n\n'
        '## Loss and queue on two CPU cores\n\n'
        '![Time of the head](plot_head.svg)\n\n'
        'Time of forward, backward and enqueue relative to the published form '
        'of each loss (1: the same), median and quartiles; N 256, K 65 536, '
        'C 128.\n\n'
        '## Shares of labels on 10 000 images of CIFAR-10\n\n'
        + _study(records / 'cifar10-cpu/results.jsonl', folder, 'cifar10')
        + 'See [CIFAR-10 on a CPU](../benchmarks/cifar10-cpu/README.md).\n'
    )


def _study(results: Path, folder: Path, prefix: str) -> str:
    """Draw two of the plots that the report of a study has."""
    records = Results(results).records
    text = ''
    for name, (caption, svg) in all_plots(
        summarise_records(records), records
    ).items():
        if name in ('label_ratio.svg', 'bars.svg'):
            (folder / f'plot_{prefix}_{name}').write_bytes(svg)
            text += f'![{caption}](plot_{prefix}_{name})\n\n{caption}\n\n'
    return text


def _head(record: dict) -> Figure:
    ratios = {
        name.split(', K ')[0]: value
        for name, value in record['head']['ratios'].items()
        if name.endswith('K 65536, fp32')
    }
    figure = Figure(figsize=(7, 0.28 * len(ratios) + 0.6))
    axes = figure.subplots()
    names = list(ratios)[::-1]
    medians = [ratios[name]['median'] for name in names]
    spread = [
        [m - ratios[n]['q1'] for n, m in zip(names, medians, strict=True)],
        [ratios[n]['q3'] - m for n, m in zip(names, medians, strict=True)],
    ]
    axes.barh(names, medians, xerr=spread, capsize=2, color='#009E73')
    axes.set_xlim(0, 1)
    axes.tick_params(labelsize=8)
    return figure
