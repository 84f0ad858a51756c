"""The report as one HTML file: tables that sort, plots inside."""

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def html_page(
    title: str,
    description: str,
    tables: Sequence[Any],
    plots: dict[str, tuple[str, bytes]],
    setup: Iterable[str],
) -> str:
    """Write the page; it needs no other file and no network.

    A column is sorted by a click on its header, or by the address
    ``report.html#sort=TABLE:COLUMN`` (``:desc`` for the reverse order).

    Args:
        title (str): Heading.
        description (str): Text below it.
        tables (Sequence[Table]): The tables.
        plots (dict): File name -> caption and SVG or PNG; shown below the
            first table.
        setup (Iterable[str]): Lines of the last section.
    """
    parts = [f'<h1>{_text(title)}</h1>']
    if description:
        parts.append(f'<p>{_text(description)}</p>')
    for index, table in enumerate(tables):
        parts.append(_table(table))
        if index == 0:
            parts += [_figure(name, *plot) for name, plot in plots.items()]
    lines = ''.join(f'<li>{_text(line)}</li>' for line in setup)
    if lines:
        parts.append(f'<h2>Setup</h2>\n<ul>{lines}</ul>')
    body = '\n'.join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, '
        f'initial-scale=1">\n<title>{escape(title)}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n'
        f'<body>\n{body}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n'
    )


def _table(table: Any) -> str:
    head = ''.join(
        f'<th scope="col"><button>{_text(name)}</button></th>'
        for name in table.header
    )
    rows = '\n'.join(
        f'<tr>{"".join(map(_cell, row))}</tr>' for row in table.rows
    )
    note = f'<p>{_text(table.note)}</p>\n' if table.note else ''
    return (
        f'<h2>{_text(table.title)}</h2>\n{note}<div class="wide">'
        f'<table id="{table.name}"><thead><tr>{head}</tr></thead>\n'
        f'<tbody>\n{rows}\n</tbody></table></div>'
    )


def _cell(cell: Any) -> str:
    text, other = cell if isinstance(cell, tuple) else (cell, None)
    if isinstance(other, str):
        return f'<td><a href="{escape(other)}">{_text(text)}</a></td>'
    if other is not None:
        return f'<td class="number" data-value="{other!r}">{_text(text)}</td>'
    return f'<td>{_text(text)}</td>'


def _figure(name: str, caption: str, drawn: bytes) -> str:
    data = base64.b64encode(drawn).decode()
    text = _text(caption)
    kind = 'svg+xml' if name.endswith('.svg') else 'png'
    return (
        f'<figure><img alt="{text}" src="data:image/{kind};base64,{data}">'
        f'<figcaption>{text}</figcaption></figure>'
    )


def _text(text: str) -> str:
    """Escape a text; no line breaks within '6 000' and '10 %'."""
    return re.sub(r'(?<=\d) (?=\d{3}\b|%)', '&nbsp;', escape(text))


_STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 68rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p, li { overflow-wrap: anywhere; max-width: 50rem; }
.wide { overflow-x: auto; } /* on a narrow screen tables scroll */
table { border-collapse: collapse; }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid #ddd;
  text-align: left; vertical-align: top; font-variant-numeric: tabular-nums; }
td { min-width: 3rem; max-width: 24rem; overflow-wrap: break-word; }
.number { white-space: nowrap; }
th button { font: inherit; font-weight: 600; color: inherit; border: 0;
  padding: 0; background: none; cursor: pointer; text-align: left; }
th button::after { content: ' \\2195'; color: #888; }
th[aria-sort=ascending] button::after { content: ' \\2191'; color: #222; }
th[aria-sort=descending] button::after { content: ' \\2193'; color: #222; }
figure { margin: 2rem 0; overflow-x: auto; }
figure img { width: 100%; min-width: 38rem; max-width: 60rem; height: auto; }
figcaption { color: #555; font-size: .9rem; }
"""

_SCRIPT = """
'use strict';
function valueOf(row, column) {
  const cell = row.cells[column];
  if ('value' in cell.dataset) return Number(cell.dataset.value);
  return cell.textContent.trim();
}
function compare(a, b) {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a).localeCompare(String(b), 'en', { numeric: true });
}
function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const isEmpty = row => ['', NaN].includes(valueOf(row, column));
  const rows = Array.from(body.rows);
  const full = rows.filter(row => !isEmpty(row));
  full.sort((a, b) => compare(valueOf(a, column), valueOf(b, column)));
  if (descending) full.reverse();
  body.append(...full, ...rows.filter(isEmpty)); // empty cells and NaN last
  Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
    if (index !== column) head.removeAttribute('aria-sort');
    else head.setAttribute(
      'aria-sort', descending ? 'descending' : 'ascending');
  });
}
for (const table of document.querySelectorAll('table')) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    head.querySelector('button').addEventListener('click', () => sortTable(
      table, column, head.getAttribute('aria-sort') === 'ascending'));
  });
}
function sortByAddress() {
  const found = /^#sort=([a-z]+):(\\d+)(:desc)?$/.exec(location.hash);
  const table = found && document.getElementById(found[1]);
  const head = table && table.tHead.rows[0].cells[Number(found[2])];
  if (!head) return;
  if (found[3]) head.setAttribute('aria-sort', 'ascending');
  else head.removeAttribute('aria-sort');
  head.querySelector('button').click();
}
window.addEventListener('hashchange', sortByAddress);
sortByAddress();
"""
