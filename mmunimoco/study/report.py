"""The report of a study: Markdown, CSV, LaTeX, and the tables of the page."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmunimoco.utils.atomic import write_atomic

from .page import html_page
from .plots import all_plots
from .progress import duration
from .scores import Summary, number, summarise_records

PUBLISHED = 'published, not run here'


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: Its id in the page.
        title: Heading.
        header: Names of the columns.
        rows: Cells; a cell may be (text, sort value) or (text, link).
        note: Text above it.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: list[tuple] = field(default_factory=list)
    note: str = ''


def write_report(
    folder: Path,
    title: str,
    records: Sequence[dict],
    published: Sequence[dict] = (),
) -> Path:
    """Write all files of the report.

    Args:
        folder (Path): Where to; links are relative to it.
        title (str): Heading.
        records (Sequence[dict]): The record of each run that has one.
        published (Sequence[dict]): Numbers of others.

    Returns:
        Path: The page, ``report.html``.
    """
    summary = summarise_records(records)
    tables = [
        _results(summary, published),
        _details(summary),
        _runs(records),
        _failures(records),
    ]
    tables = [table for table in tables if table.rows]
    plots = all_plots(summary, records)
    setup = _setup(records)
    for name, (_, drawn) in plots.items():
        write_atomic(folder / 'plots' / name, drawn)
    write_atomic(
        folder / 'report.md', _markdown(title, tables, plots, setup) + '\n'
    )
    write_atomic(folder / 'results.csv', _csv(summary, published))
    write_atomic(folder / 'results.tex', _latex(summary, published))
    page = folder / 'report.html'
    write_atomic(page, html_page(title, tables, plots, setup))
    return page


def _results(summary: Summary, published: Sequence[dict]) -> Table:
    rows = []
    for name in summary.variants:
        cells: list = [name]
        for column in summary.columns:
            cell = summary.cells.get((name, column))
            cells.append((cell.text(), cell.mean) if cell else '')
        rows.append(tuple(cells))
    for entry in published:
        cells = [f'{entry["name"]} ({PUBLISHED}: {entry["source"]})']
        for column in summary.columns:
            text = _published_value(entry, column)
            cells.append((text, entry['value']) if text else '')
        rows.append(tuple(cells))
    header = ('Variant', *(column.title for column in summary.columns))
    return Table('results', 'Results', header, rows, summary.rule)


def _published_value(entry: dict, column: object) -> str:
    """The text of a published number, if it belongs to this column."""
    metric = entry.get('metric', column.metric)
    if (entry['evaluation'], metric) != (column.evaluation, column.metric):
        return ''
    spread = f' ± {entry["std"]}' if 'std' in entry else ''
    return f'{entry["value"]}{spread} †'


def _details(summary: Summary) -> Table:
    rows = []
    for (name, column), cell in summary.cells.items():
        std = '' if cell.std is None else number(cell.std, like=cell.mean)
        best = sum(cell.best) / len(cell.best)
        p_value = '' if cell.p_value is None else f'{cell.p_value:.2g}'
        rows.append(
            (
                *(name, column.evaluation, column.metric),
                *((str(len(cell.values)), len(cell.values)),),
                *((number(cell.mean), cell.mean), (std, cell.std or 0.0)),
                *((number(best), best), (p_value, cell.p_value or 1.0)),
            )
        )
    return Table(
        'details',
        'Scores in detail',
        (
            *('Variant', 'Evaluation', 'Metric', 'n', 'Mean', 'Std'),
            *('Mean of best epochs', 'p against runner-up'),
        ),
        rows,
        'The best epoch is chosen on the data that the score is of, so it is '
        'too optimistic; compare the last epochs.',
    )


def _runs(records: Iterable[dict]) -> Table:
    rows = []
    for record in records:
        scores = ', '.join(
            f'{name} {number(value["last"])}'
            for name, value in record['metrics'].items()
        )
        seconds = record.get('seconds')
        rows.append(
            (
                *(record['variant'], record['evaluation']),
                *((str(record['seed']), record['seed']), record['status']),
                *(
                    scores,
                    (
                        '' if seconds is None else duration(seconds),
                        seconds or 0.0,
                    ),
                ),
                *(_link('log', record), _link('config', record)),
            )
        )
    header = (
        *('Variant', 'Run', 'Seed', 'State', 'Scores', 'Time'),
        *('Log', 'Config'),
    )
    return Table('runs', 'All runs', header, rows)


def _link(kind: str, record: dict) -> tuple[str, str] | str:
    path = record.get(kind)
    return (kind, f'./{path}') if path else ''


def _failures(records: Iterable[dict]) -> Table:
    rows = [
        (
            f'{record["variant"]}, seed {record["seed"]}',
            record['evaluation'],
            ' / '.join(record['tail'][-4:]),
        )
        for record in records
        if record['status'] == 'failed'
    ]
    header = ('Variant', 'Run', 'Last lines of the log')
    return Table('failed', 'Failed runs', header, rows)


def _setup(records: Sequence[dict]) -> list[str]:
    """What the numbers were made with."""
    lines = []
    protocols = {r['evaluation']: r['protocol'] for r in records}
    for name, protocol in protocols.items():
        shown = ', '.join(f'{k}={v}' for k, v in protocol.items())
        lines.append(f'Protocol {name}: {shown}')
    machines = [dict(r['machine']) for r in records if r.get('machine')]
    versions = [r['versions'] for r in records if r.get('versions')]
    for kind, found in (('Machine', machines), ('Versions', versions)):
        for text in dict.fromkeys(
            ', '.join(f'{k} {v}' for k, v in one.items()) for one in found
        ):
            lines.append(f'{kind}: {text}')
    codes = dict.fromkeys(r['code'] for r in records if r.get('code'))
    if codes:
        lines.append(f'Code: {", ".join(codes)}')
    if len(codes) > 1:
        lines.append('These runs are of different versions of the code.')
    return lines


def _markdown(
    title: str, tables: list[Table], plots: dict, setup: list[str]
) -> str:
    blocks = [f'# {title}']
    for table in tables:
        blocks.append(f'## {table.title}')
        if table.note:
            blocks.append(table.note)
        rows = [table.header, ['---'] * len(table.header)]
        rows += [[_markdown_cell(cell) for cell in row] for row in table.rows]
        blocks.append('\n'.join(f'| {" | ".join(row)} |' for row in rows))
        if table.name == 'results':
            blocks += [
                f'![{caption}](plots/{name})\n\n{caption}'
                for name, (caption, _) in plots.items()
            ]
    if setup:
        blocks.append('## Setup\n\n' + '\n'.join(f'- {x}' for x in setup))
    return '\n\n'.join(blocks)


def _markdown_cell(cell: object) -> str:
    text, other = cell if isinstance(cell, tuple) else (cell, None)
    text = text.replace('|', '\\|').replace('*', '\\*')
    return f'[{text}]({other})' if isinstance(other, str) else text


def _csv(summary: Summary, published: Sequence[dict]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(
        (
            *('variant', 'label_ratio', 'evaluation', 'metric', 'n', 'mean'),
            *('std', 'best_mean', 'wins', 'p_value', 'source'),
        )
    )
    for (name, column), cell in summary.cells.items():
        best = sum(cell.best) / len(cell.best)
        writer.writerow(
            (
                *(name, summary.variants[name]['label_ratio']),
                *(column.evaluation, column.metric, len(cell.values)),
                *(cell.mean, cell.std, best, cell.wins, cell.p_value),
                'measured',
            )
        )
    for entry in published:
        row = (entry['name'], '', entry['evaluation'], entry.get('metric'))
        spread = (entry.get('n'), entry['value'], entry.get('std'))
        source = f'published: {entry["source"]}'
        writer.writerow((*row, *spread, '', '', '', source))
    return file.getvalue()


def _latex(summary: Summary, published: Sequence[dict]) -> str:
    header = ('Variant', *(column.title for column in summary.columns))
    lines = [
        f'% {summary.rule}'.replace('±', '+-').replace('−', '-'),
        f'\\begin{{tabular}}{{l{"r" * len(summary.columns)}}}',
        '\\hline',
        _latex_row(map(_escape, header)),
        '\\hline',
    ]
    for name in summary.variants:
        cells = [_escape(name)]
        for column in summary.columns:
            cell = summary.cells.get((name, column))
            text = cell.text(' $\\pm$ ').rstrip('*') if cell else '--'
            wins = cell is not None and cell.wins
            cells.append(f'\\textbf{{{text}}}' if wins else text)
        lines.append(_latex_row(cells))
    for entry in published:
        cells = [_escape(f'{entry["name"]} (published: {entry["source"]})')]
        for column in summary.columns:
            text = _published_value(entry, column)
            text = text.replace(' †', '').replace('±', '$\\pm$')
            cells.append(text or '--')
        lines.append(_latex_row(cells))
    return '\n'.join([*lines, '\\hline', '\\end{tabular}', ''])


def _latex_row(cells: Iterable[str]) -> str:
    return ' & '.join(cells) + ' \\\\'


def _escape(text: str) -> str:
    for special in '\\&%$#_{}':
        text = text.replace(special, f'\\{special}')
    return text
