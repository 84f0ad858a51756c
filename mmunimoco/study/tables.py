"""The tables of a report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from .expectations import OUTCOMES, judge
from .progress import duration
from .scores import Column, Summary, number

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


def results_table(summary: Summary, published: Sequence[dict]) -> Table:
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
            text = published_value(entry, column)
            cells.append((text, entry['value']) if text else '')
        rows.append(tuple(cells))
    header = ('Variant', *(column.title for column in summary.columns))
    return Table('results', 'Results', header, rows, summary.rule)


def published_value(entry: dict, column: Column) -> str:
    """The text of a published number, if it belongs to this column."""
    metric = entry.get('metric', column.metric)
    if (entry['evaluation'], metric) != (column.evaluation, column.metric):
        return ''
    spread = f' ± {entry["std"]}' if 'std' in entry else ''
    return f'{entry["value"]}{spread} †'


def expectations_table(summary: Summary, entries: Sequence[dict]) -> Table:
    rows = [
        (outcome.claim, outcome.numbers, OUTCOMES[outcome.holds])
        for outcome in judge(summary, entries)
    ]
    header = ('Expectation', 'Means', 'Result')
    return Table('expectations', 'Expectations', header, rows)


def details_table(summary: Summary) -> Table:
    rows = []
    for (name, column), cell in summary.cells.items():
        std = '' if cell.std is None else number(cell.std, like=cell.mean)
        best = sum(cell.best) / len(cell.best)
        p_value = '' if cell.p_value is None else f'{cell.p_value:.2g}'
        rows.append(
            (
                *(name, column.evaluation, column.metric),
                *((str(len(cell.values)), len(cell.values)),),
                *((number(cell.mean), cell.mean), (std, cell.std)),
                *((number(best), best), (p_value, cell.p_value)),
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


def runs_table(records: Iterable[dict]) -> Table:
    rows = []
    for record in records:
        scale = float(record['protocol'].get('scale', 1.0))
        scores = ', '.join(
            f'{name} {number(scale * value["last"])}'
            for name, value in record['metrics'].items()
        )
        last = _last_scored(record)
        seconds, seed = record.get('seconds'), record['seed']
        # Of a compared run that names none it is unknown.
        shown = ('' if seed is None else str(seed), seed)
        rows.append(
            (
                *(record['variant'], record['evaluation']),
                *(shown, record['status'], scores),
                (f'{last[0]} {last[1]}', last[1]) if last else '',
                ('' if seconds is None else duration(seconds), seconds),
                *(_link('log', record), _link('config', record)),
            )
        )
    header = (
        *('Variant', 'Run', 'Seed', 'State', 'Scores', 'Last scored'),
        *('Time', 'Log', 'Config'),
    )
    return Table('runs', 'All runs', header, rows)


def _different_lengths(records: Sequence[dict]) -> list[str]:
    """Say of which evaluations the scores are of different epochs."""
    lasts: dict[str, dict] = {}
    for record in records:
        last = _last_scored(record)
        if last and record['status'] == 'done':
            lasts.setdefault(record['evaluation'], {})[last] = None
    return [
        f'The runs of {name} are of different lengths: '
        f'{", ".join(f"{unit} {step}" for unit, step in sorted(found))}.'
        for name, found in lasts.items()
        if len(found) > 1
    ]


def _last_scored(record: dict) -> tuple[str, int] | None:
    """The epoch or iteration that the scores are of."""
    steps = [curve[-1][0] for curve in record.get('curves', {}).values()]
    return (record['unit'], max(steps)) if steps else None


def _link(kind: str, record: dict) -> tuple[str, str] | str:
    path = record.get(kind)
    return (kind, f'./{quote(path)}') if path else ''


def failures_table(records: Iterable[dict]) -> Table:
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


def setup_lines(records: Sequence[dict]) -> list[str]:
    """What the numbers were made with."""
    lines = []
    protocols = {r['evaluation']: r['protocol'] for r in records}
    for name, protocol in protocols.items():
        shown = ', '.join(f'{k}={v}' for k, v in protocol.items())
        lines.append(f'Protocol {name}: {shown}')
    lines += _different_lengths(records)
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
