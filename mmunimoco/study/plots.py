"""Plots of a study as SVG."""

import io
from collections.abc import Callable, Iterator, Sequence
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .protocols import PRETRAIN
from .scores import Column, Summary
from .spec import short_field

STYLE = {
    'font.size': 10.5,
    'axes.titlesize': 11.5,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#E5E5E5',
    'axes.axisbelow': True,
    'legend.frameon': False,
    'text.parse_math': False,  # '$' in a name is a dollar
    'svg.fonttype': 'path',  # the same on machines without the font
    'svg.hashsalt': 'mmunimoco',  # the same bytes from the same numbers
}
# Okabe and Ito's palette, which colour-blind readers can distinguish.
_COLORS = (
    *('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00'),
    *('#56B4E9', '#555555'),
)
_MARKERS, _LINES = 'os^Dv<>', ('-', '--', ':')
_MAX_CURVES, _MAX_PANELS, _LONG_NAME = 21, 4, 24
_LINE, _NAME = 110, 50  # letters: across a figure, and beside a bar


def all_plots(
    summary: Summary, records: Sequence[dict]
) -> dict[str, tuple[str, bytes]]:
    """Draw all plots for which there are numbers.

    Args:
        summary (Summary): Means over seeds.
        records (Sequence[dict]): All records, with curves.

    Returns:
        dict: File name -> caption and SVG.
    """
    plots = {}
    for name, (caption, draw) in _wanted(summary, records):
        with mpl.rc_context(STYLE):
            plots[name] = (caption, draw())
    return plots


def _wanted(
    summary: Summary, records: Sequence[dict]
) -> Iterator[tuple[str, tuple[str, Callable]]]:
    with_labels = {
        name: record
        for name, record in summary.variants.items()
        if record['label_ratio'] is not None
    }
    others = [name for name in summary.variants if name not in with_labels]
    if len({r['label_ratio'] for r in with_labels.values()}) > 1:
        yield (
            'label_ratio.svg',
            (
                'Score over the share of labels in pre-training; error bars: '
                'standard deviation over seeds.'
                + _left_out('other variants', others, len(_LINES)),
                lambda: _over_labels(summary, with_labels, others),
            ),
        )
    own = _of_pretraining(records, 'curves')
    # A single validation is no curve; the table and the bars have it.
    metrics = list(
        dict.fromkeys(
            (r['evaluation'], metric)
            for r in own
            for metric, curve in r['curves'].items()
            if curve[1:]
        )
    )
    if metrics:
        yield (
            'curves.svg',
            (
                'Validation during training: mean over seeds, and from the '
                'lowest to the highest seed.'
                + _left_out('metrics', metrics, _MAX_PANELS)
                + _left_out('variants', _names(own), _MAX_CURVES),
                lambda: _over_time(own, 'curves', metrics[:_MAX_PANELS]),
            ),
        )
    trained = _of_pretraining(records, 'loss')
    if trained:
        kinds = list(dict.fromkeys(r['evaluation'] for r in trained))
        losses = [(kind, 'loss') for kind in kinds]
        yield (
            'loss.svg',
            (
                'Training loss: mean over seeds. More labels mean more '
                'positives and a larger loss, so compare shapes only.'
                + _left_out('evaluations', kinds, _MAX_PANELS)
                + _left_out('variants', _names(trained), _MAX_CURVES),
                lambda: _over_time(trained, 'loss', losses[:_MAX_PANELS]),
            ),
        )
    if summary.columns:
        yield (
            'bars.svg',
            (
                'Scores of the last epoch; error bars: standard deviation '
                'over seeds, dots: single seeds.',
                lambda: _bars(summary),
            ),
        )


def _of_pretraining(records: Sequence[dict], field: str) -> list[dict]:
    """Records that have a field; those of pre-training, if any."""
    found = [r for r in records if r.get(field)]
    return [r for r in found if r['evaluation'] == PRETRAIN] or found


def _names(records: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(r['variant'] for r in records))


def _left_out(what: str, items: Sequence, limit: int) -> str:
    if len(items) <= limit:
        return ''
    return f' Of {len(items)} {what} the first {limit} are drawn.'


def _over_labels(
    summary: Summary, variants: dict[str, dict], others: Sequence[str]
) -> bytes:
    figure, panels = _panels(summary.columns)
    series = list(dict.fromkeys(map(_series, variants.values())))
    for axes, column in zip(panels, summary.columns, strict=True):
        for index, name in enumerate(series):
            points = sorted(
                (
                    100 * record['label_ratio'],
                    summary.cells[variant, column].mean,
                    summary.cells[variant, column].std or 0.0,
                )
                for variant, record in variants.items()
                if _series(record) == name
                and (variant, column) in summary.cells
            )
            if points:
                x, y, error = np.array(points).T
                axes.errorbar(
                    *(x, y),
                    yerr=error,
                    capsize=3,
                    label=name,
                    **_style(index),
                )
        # What is gained at all, so that no axis shows noise alone.
        for index, name in enumerate(others[: len(_LINES)]):
            if (name, column) in summary.cells:
                axes.axhline(
                    summary.cells[name, column].mean,
                    color='#999999',
                    linestyle=_LINES[-1 - index],
                    label=name,
                )
        axes.set(xlabel='labels in %', title=column.title)
    return _finish(figure, panels)


def _series(record: dict) -> str:
    grid = record['grid']
    parts = [
        f'{short_field(key, grid)}={value}'
        for key, value in grid.items()
        if not key.endswith('label_ratio')
    ]
    return ', '.join([record.get('series') or record['group'], *parts])


def _over_time(
    records: Sequence[dict], field: str, metrics: Sequence[tuple[str, str]]
) -> bytes:
    figure, panels = _panels(metrics)
    names = _names(records)[:_MAX_CURVES]
    for axes, (kind, metric) in zip(panels, metrics, strict=True):
        for index, name in enumerate(names):
            curves = [
                record[field] if field == 'loss' else record[field][metric]
                for record in records
                if (record['variant'], record['evaluation']) == (name, kind)
                and (field == 'loss' or metric in record[field])
            ]
            if not any(curves):
                continue
            values: dict[float, list[float]] = {}
            for step, value in (p for curve in curves for p in curve):
                values.setdefault(step, []).append(value)
            x = sorted(values)
            axes.plot(
                x,
                [np.mean(values[s]) for s in x],
                label=name,
                markevery=max(1, len(x) // 8),
                **_style(index),
            )
            axes.fill_between(
                x,
                [min(values[s]) for s in x],
                [max(values[s]) for s in x],
                color=_COLORS[index % len(_COLORS)],
                alpha=0.15,
                linewidth=0,
            )
        units = {r['unit']: None for r in records if r['evaluation'] == kind}
        unit = 'iteration' if field == 'loss' else ' or '.join(units)
        several = len({evaluation for evaluation, _ in metrics}) > 1
        title = f'{kind}: {metric}' if several else metric
        axes.set(xlabel=unit, title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return _finish(figure, panels)


def _bars(summary: Summary) -> bytes:
    rows = {
        column: [n for n in summary.variants if (n, column) in summary.cells]
        for column in summary.columns
    }
    lines = [
        sum(1 + len(n) // _NAME for n in names) for names in rows.values()
    ]
    height = 0.9 + 0.32 * max(lines)
    # Long names leave no room for bars beside another panel.
    wide = max(map(len, summary.variants)) > _LONG_NAME
    figure, panels = _panels(summary.columns, height, 1 if wide else 2)
    for axes, (column, names) in zip(panels, rows.items(), strict=True):
        for place, name in enumerate(names):
            cell = summary.cells[name, column]
            axes.barh(
                place,
                cell.mean,
                xerr=cell.std or 0.0,
                height=0.65,
                capsize=3,
                color='#0072B2' if cell.wins else '#9DB8CC',
            )
            places = [place] * len(cell.values)
            axes.plot(cell.values, places, 'o', color='#222222', markersize=3)
        shown = [fill(name, _NAME) for name in names]
        axes.set_yticks(range(len(names)), shown)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        axes.set_title(column.title)
        axes.grid(axis='y', visible=False)
        _zoom(axes, summary, column)
    return _finish(figure, panels, legend=False)


def _zoom(axes: Axes, summary: Summary, column: Column) -> None:
    """Cut the axis where all scores are close to each other; say so."""
    values = [
        value
        for (_, other), cell in summary.cells.items()
        if other == column
        for value in cell.values
    ]
    low, high = min(values), max(values)
    spread = high - low
    if low > 0 and spread < 0.3 * high:
        margin = max(spread, 0.01 * high)
        axes.set_xlim(max(0.0, low - margin), high + 0.4 * margin)
        axes.set_xlabel('the axis does not start at 0')


def _panels(
    items: Sequence, height: float = 3.4, columns: int = 2
) -> tuple[Figure, list[Axes]]:
    columns = min(columns, len(items))
    rows = -(-len(items) // columns)
    figure = Figure(figsize=(9.6, height * rows + 0.5), layout='constrained')
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in grid[len(items) :]:
        unused.set_visible(False)
    return figure, grid[: len(items)]


def _style(index: int) -> dict:
    return dict(
        color=_COLORS[index % len(_COLORS)],
        # Another one where colours begin again.
        marker=_MARKERS[(index + index // len(_COLORS)) % len(_MARKERS)],
        linestyle=_LINES[index // len(_COLORS) % len(_LINES)],
        markersize=4,
        linewidth=1.8,
    )


def _finish(figure: Figure, panels: list[Axes], legend: bool = True) -> bytes:
    handles, labels = [], []
    for axes in panels:
        for handle, label in zip(
            *axes.get_legend_handles_labels(), strict=True
        ):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    if legend and len(labels) > 1:
        names = [fill(label, _LINE) for label in labels]
        lines = '\n'.join(names).split('\n')
        columns = max(1, min(3, _LINE // (max(map(len, lines)) + 6)))
        figure.legend(
            handles, names, loc='outside lower center', ncols=columns
        )
        # The panels keep their height: 0.21 inch is a line.
        height = 0.21 * max(0, len(lines) / columns - 2)
        figure.set_figheight(figure.get_figheight() + height)
    # Not pyplot, which has global state and looks for a display.
    FigureCanvasSVG(figure)
    file = io.BytesIO()
    figure.savefig(file, format='svg', metadata={'Date': None})
    return file.getvalue()
