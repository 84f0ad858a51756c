"""The report of a study: page, Markdown, CSV, LaTeX, terminal."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from rich import table as rich_table
from rich.console import Console

from mmunimoco.utils.atomic import write_atomic

from .expectations import judge
from .page import html_page
from .plots import all_plots
from .scores import Summary, summarise_records
from .tables import (
    Table,
    details_table,
    expectations_table,
    failures_table,
    published_value,
    results_table,
    runs_table,
    setup_lines,
)

_LATEX = {letter: f'\\{letter}' for letter in '&%$#_{}'} | {
    '\\': r'\textbackslash{}',
    '^': r'\textasciicircum{}',
    '~': r'\textasciitilde{}',
    '<': '$<$',
    '>': '$>$',
}
# What the report consists of, beside the pictures in plots/.
FILES = ('report.html', 'report.md', 'results.csv', 'results.tex')


def write_report(
    folder: Path,
    title: str,
    records: Sequence[dict],
    published: Sequence[dict] = (),
    expectations: Sequence[dict] = (),
    description: str = '',
) -> Path:
    """Write all files of the report.

    Args:
        folder (Path): Where to; links are relative to it. Its
            ``figures/*.png`` are shown.
        title (str): Heading.
        records (Sequence[dict]): The record of each run that has one.
        published (Sequence[dict]): Numbers of others.
        expectations (Sequence[dict]): What is expected of the scores.
        description (str): Text below the heading.

    Returns:
        Path: The page, ``report.html``.
    """
    summary = summarise_records(records)
    tables = [
        results_table(summary, published),
        expectations_table(summary, expectations),
        details_table(summary),
        runs_table(records),
        failures_table(records),
    ]
    tables = [table for table in tables if table.rows]
    plots = {
        f'plots/{name}': plot
        for name, plot in all_plots(summary, records).items()
    }
    for name, (_, drawn) in plots.items():
        write_atomic(folder / name, drawn)
    figures, left_out = read_figures(folder)
    parts = (tables, plots | figures, [*setup_lines(records), *left_out])
    markdown = _markdown(title, description, *parts) + '\n'
    write_atomic(folder / 'report.md', markdown)
    write_atomic(folder / 'results.csv', _csv(summary, published))
    write_atomic(folder / 'results.tex', _latex(summary, published))
    page = folder / 'report.html'
    write_atomic(page, html_page(title, description, *parts))
    return page


def print_report(
    console: Console,
    page: Path,
    records: Sequence[dict],
    expectations: Sequence[dict] = (),
) -> None:
    """Print the results, the expectations and the path of the page."""
    summary = summarise_records(records)
    for table in _result_tables(summary, console.width):
        console.print(table, markup=False)
    lines = [str(outcome) for outcome in judge(summary, expectations)]
    lines.append(f'Report: {page} (also {", ".join(FILES[1:])})')
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _result_tables(summary: Summary, width: int) -> Iterable[rich_table.Table]:
    """Scores of all variants, in a table as many columns as a line holds."""
    # Names may break between words, numbers may not. A column has a border
    # and two blanks, the first one more border.
    words = ' '.join(['Variant', *summary.variants]).split()
    left = for_scores = width - max(map(len, words)) - 4
    groups: list[list[tuple[str, list[str]]]] = [[]]
    for column in summary.columns:
        title = f'{column.evaluation}\n{column.metric.rpartition("/")[2]}'
        cells = (summary.cells.get((n, column)) for n in summary.variants)
        texts = [c.text().removesuffix(' (n=1)') if c else '' for c in cells]
        needed = max(map(len, title.split('\n') + texts)) + 3
        if groups[-1] and needed > left:
            groups.append([])
            left = for_scores
        groups[-1].append((title, texts))
        left -= needed
    for group in groups:
        table = rich_table.Table('Variant')
        for title, _ in group:
            table.add_column(title, justify='right', no_wrap=True)
        for row in zip(
            summary.variants, *(texts for _, texts in group), strict=True
        ):
            table.add_row(*row)
        yield table


def read_figures(
    folder: Path,
) -> tuple[dict[str, tuple[str, bytes]], list[str]]:
    """Pictures that others have put into ``figures/``.

    Returns:
        tuple: Path -> caption, the PNG's ``Description`` or else its name, and
        content; and a line for each file that is no whole picture.
    """
    found, left_out = {}, []
    for path in sorted((folder / 'figures').glob('*.png')):
        name = f'figures/{path.name}'
        try:
            with Image.open(path) as image:
                image.load()  # else only the header is read
                caption = str(image.info.get('Description', path.stem))
            found[name] = (caption, path.read_bytes())
        # The kinds that Pillow raises, by where the file ends.
        except (OSError, SyntaxError, ValueError):
            left_out.append(
                f'{name} is damaged, or not yet written to its end, and is '
                'not shown'
            )
    return found, left_out


def _markdown(
    title: str,
    description: str,
    tables: list[Table],
    plots: dict,
    setup: list[str],
) -> str:
    blocks = [f'# {title}', *([description] if description else [])]
    for table in tables:
        blocks.append(f'## {table.title}')
        if table.note:
            blocks.append(table.note)
        header, *rows = (
            [_markdown_cell(cell) for cell in row]
            for row in (table.header, *table.rows)
        )
        rows = [header, ['---'] * len(header), *rows]
        blocks.append('\n'.join(f'| {" | ".join(row)} |' for row in rows))
        if table.name == 'results':
            blocks += [
                f'![{caption}]({quote(name)})\n\n{caption}'
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
            text = published_value(entry, column)
            text = text.replace(' †', '').replace('±', '$\\pm$')
            cells.append(text or '--')
        lines.append(_latex_row(cells))
    return '\n'.join([*lines, '\\hline', '\\end{tabular}', ''])


def _latex_row(cells: Iterable[str]) -> str:
    return ' & '.join(cells) + ' \\\\'


def _escape(text: str) -> str:
    """Text for LaTeX; a bracket at its start would belong to the last row."""
    text = ''.join(_LATEX.get(letter, letter) for letter in text)
    return f'{{}}{text}' if text.startswith('[') else text
