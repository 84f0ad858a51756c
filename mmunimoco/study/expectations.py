"""What a study file expects of the scores, and whether it holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .fields import NAME_OR_NAMES, NUMBER, TEXT, check_entry
from .protocols import metric_of
from .scores import Column, Summary, number

_NEEDED = ('evaluation', 'better', 'than')
_KINDS = dict(
    evaluation=TEXT,
    better=NAME_OR_NAMES,
    than=NAME_OR_NAMES,
    metric=TEXT,
    by=NUMBER,
)
OUTCOMES = {True: 'holds', False: 'does not hold', None: 'not known yet'}


@dataclass(frozen=True)
class Outcome:
    """An expectation and what became of it.

    Attributes:
        claim: What was expected.
        numbers: The means that are compared.
        holds: Whether all of them are as expected; None if one is missing.
    """

    claim: str
    numbers: str
    holds: bool | None

    def __str__(self) -> str:
        return f'{OUTCOMES[self.holds]}: {self.claim} ({self.numbers})'


def check_expectations(
    path: Path,
    entries: Sequence[Mapping],
    variants: Sequence[str],
    evaluations: Mapping[str, dict],
) -> Iterator[dict]:
    """Check expectations and complete them.

    Args:
        path (Path): The study file.
        entries (Sequence[Mapping]): Its ``expectations``.
        variants (Sequence[str]): Names of all variants.
        evaluations (Mapping[str, dict]): Checked evaluations.

    Yields:
        dict: With ``metric`` and ``by``, and with ``better`` and ``than`` as
        lists.

    Raises:
        ValueError: If a field is missing or unknown, or names nothing.
    """
    for index, entry in enumerate(entries):
        place = f'{path}: expectations[{index}]'
        check_entry(place, entry, _KINDS, needed=_NEEDED)
        metric = metric_of(place, entry, evaluations)
        found = dict(entry, metric=metric, by=float(entry.get('by', 0.0)))
        for side in ('better', 'than'):
            names = entry[side]
            found[side] = [names] if isinstance(names, str) else list(names)
            for name in found[side]:
                if name not in variants:
                    raise ValueError(
                        f'{place}.{side} names {name!r}; the variants are '
                        f'{", ".join(variants)}'
                    )
        yield found


def judge(summary: Summary, entries: Sequence[Mapping]) -> list[Outcome]:
    """Compare means over seeds, with the decimals that the tables show.

    Args:
        summary (Summary): Means over seeds.
        entries (Sequence[Mapping]): Of :func:`check_expectations`.
    """
    return [_judge(summary, entry) for entry in entries]


def _judge(summary: Summary, entry: Mapping) -> Outcome:
    names = (entry['evaluation'], entry['metric'])
    column = next(
        (c for c in summary.columns if (c.evaluation, c.metric) == names),
        Column(*names),
    )
    better, than = (
        [_shown(summary, name, column) for name in entry[side]]
        for side in ('better', 'than')
    )
    holds = None
    if None not in (*better, *than):
        sign = -1 if column.lower_is_better else 1
        # Of the two that are nearest to breaking it.
        gap = min(sign * float(b) for b in better)
        gap = round(gap - max(sign * float(t) for t in than), 4)
        holds = gap > 0 and gap >= entry['by']
    margin = f' by {entry["by"]:g} or more' if entry['by'] else ''
    claim = (
        f'{column.title}: {", ".join(entry["better"])} better than '
        f'{", ".join(entry["than"])}{margin}'
    )
    known = (', '.join(x or 'none' for x in side) for side in (better, than))
    return Outcome(claim, ' against '.join(known), holds)


def _shown(summary: Summary, variant: str, column: Column) -> str | None:
    cell = summary.cells.get((variant, column))
    return None if cell is None else number(cell.mean)
