"""Mean and spread over seeds, and which variant wins beyond the noise."""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .protocols import PRETRAIN
from .records import summarise

MIN_SEEDS, MAX_P = 3, 0.05
RULE = (
    'Scores are those of the last epoch, as mean ± standard deviation '
    '(n − 1) over seeds. The best variant of a comparison is marked (*) only '
    f'if it and the runner-up have at least {MIN_SEEDS} seeds each, with '
    "scores that vary, and Welch's t-test (two-sided, unequal variances) "
    'between the two gives '
    f'p < {MAX_P}. It is not corrected for the number of columns.'
)
GROUP_RULE = (
    ' Only variants at the same point of the grid are compared; one without a '
    'grid has to be better than all.'
)


@dataclass(frozen=True)
class Column:
    """A metric of an evaluation, and how it is shown."""

    evaluation: str
    metric: str
    lower_is_better: bool = False
    scale: float = 1.0

    @property
    def title(self) -> str:
        """For people."""
        return f'{self.evaluation}: {self.metric}'


@dataclass(frozen=True)
class Cell:
    """The scores of a variant.

    Attributes:
        values: Of the last epoch, one per seed.
        best: Of the best epoch.
        wins: Whether it is better than all others, beyond the noise.
        p_value: Of the test against the runner-up, where it is the best.
    """

    values: tuple[float, ...]
    best: tuple[float, ...]
    wins: bool = False
    p_value: float | None = None

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds, of n - 1; None for one seed."""
        if len(self.values) < 2:
            return None
        return float(np.std(self.values, ddof=1))

    def text(self, plus_minus: str = ' ± ') -> str:
        """'82.31 ± 0.62 (n=3)', and '*' if it wins."""
        text = number(self.mean)
        if self.std is not None:
            text += f'{plus_minus}{number(self.std, like=self.mean)}'
        return f'{text} (n={len(self.values)})' + ('*' if self.wins else '')


@dataclass(frozen=True)
class Summary:
    """All variants and columns.

    Attributes:
        variants: Name -> one of its records, for group, grid and labels.
        columns: What was measured.
        cells: (variant, column) -> scores.
        rule: How winners are marked.
    """

    variants: dict[str, dict]
    columns: tuple[Column, ...]
    cells: dict[tuple[str, Column], Cell]
    rule: str


def summarise_records(records: Sequence[dict]) -> Summary:
    """Combine the records of all seeds.

    Args:
        records (Sequence[dict]): One record for each run; failed ones are
            left out.
    """
    done = [record for record in records if record['status'] == 'done']
    variants = {}
    for record in done:
        variants.setdefault(record['variant'], record)
    columns = tuple(dict.fromkeys(_columns(done)))
    cells = {}
    for column in columns:
        for name in variants:
            own = [
                _last_and_best(record, column)
                for record in done
                if record['variant'] == name
                and record['evaluation'] == column.evaluation
                and column.metric in record['metrics']
            ]
            if own:
                cells[name, column] = Cell(
                    tuple(column.scale * x['last'] for x in own),
                    tuple(column.scale * x['best'] for x in own),
                )
    by_point = _compared_by_point(variants)
    for column in columns:
        for names, candidates in _comparisons(variants, by_point):
            keys = [(n, column) for n in names if (n, column) in cells]
            _mark(cells, keys, candidates)
    rule = RULE + (GROUP_RULE if by_point else '')
    return Summary(variants, columns, cells, rule)


def welch(first: Sequence[float], second: Sequence[float]) -> float | None:
    """P-value of Welch's t-test; None if neither sample varies."""
    # From scikit-learn's requirements; it takes a second to import.
    from scipy.stats import ttest_ind

    if np.ptp(first) == 0 and np.ptp(second) == 0:
        return None
    with warnings.catch_warnings():  # of one sample that does not vary
        warnings.simplefilter('ignore', RuntimeWarning)
        return float(ttest_ind(first, second, equal_var=False).pvalue)


def number(value: float, like: float | None = None) -> str:
    """A score with two decimals, or four where it is below one."""
    size = abs(value if like is None else like)
    if not math.isfinite(value):
        return str(value)
    return f'{value:.2f}' if size >= 1 or size == 0 else f'{value:.4f}'


def _columns(done: Iterable[dict]) -> Iterable[Column]:
    """What the evaluations report; without any, the validations."""
    evaluated = [r for r in done if r['evaluation'] != PRETRAIN]
    for record in evaluated or done:
        protocol = record['protocol']
        lower = protocol.get('lower_is_better')
        for metric in protocol.get('metrics') or record['metrics']:
            yield Column(
                record['evaluation'],
                metric,
                # Of a comparison of any runs: the names of these metrics.
                metric in lower if isinstance(lower, list) else bool(lower),
                float(protocol.get('scale', 1.0)),
            )


def _last_and_best(record: dict, column: Column) -> dict:
    """Scores of a run; which is the best is what the column says today."""
    curve = record.get('curves', {}).get(column.metric)
    if curve:
        return summarise(curve, column.lower_is_better)
    return record['metrics'][column.metric]


def _compared_by_point(variants: dict[str, dict]) -> bool:
    groups = {record['group'] for record in variants.values()}
    return len(groups) > 1 and any(r['grid'] for r in variants.values())


def _comparisons(
    variants: dict[str, dict], by_point: bool
) -> Iterable[tuple[list[str], list[str]]]:
    """Names of variants that are compared, and of those that may win."""
    points: dict[str, list[str]] = {}
    for name, record in variants.items():
        key = repr(sorted(record['grid'].items())) if by_point else ''
        points.setdefault(key, []).append(name)
    for names in points.values():
        # Those at no point, such as random weights, are compared with all.
        alone = by_point and not variants[names[0]]['grid']
        yield [*variants] if alone else names, names


def _mark(cells: dict, keys: list, candidates: Sequence[str]) -> None:
    """Mark the winner, by :data:`RULE`, if it is a candidate."""
    keys = [key for key in keys if math.isfinite(cells[key].mean)]
    if len(keys) < 2:
        return
    sign = -1 if keys[0][1].lower_is_better else 1
    first, second = sorted(keys, key=lambda k: -sign * cells[k].mean)[:2]
    if first[0] not in candidates:
        return
    best, runner_up = cells[first], cells[second]
    if min(len(best.values), len(runner_up.values)) < MIN_SEEDS:
        return
    # The same number for each seed is one number, as of fixed weights.
    if 0 in (np.ptp(best.values), np.ptp(runner_up.values)):
        return
    p_value = welch(best.values, runner_up.values)
    wins = p_value is not None and p_value < MAX_P
    cells[first] = Cell(best.values, best.best, wins, p_value)
