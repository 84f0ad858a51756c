"""Contestants that take turns, as many and as often as the time allows."""

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from .budget import Budget, OutOfTime
from .measure import quartiles, ratio
from .turns import are_taken, measuring, preparing

Measure = Callable[[], float]
FAILED = 'failed: '


@dataclass
class Contest:
    """What was measured.

    Attributes:
        values (dict[Any, list[float]]): By contestant, one value per round;
            all have the same number.
        left_out (dict[str, str]): What was not measured, and why. A
            contestant that raised is there too, as :data:`FAILED` and the
            error: the others may be all that a run on a lent card brings.
    """

    values: dict[Any, list[float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def spread(self, scale: float = 1) -> dict[Any, dict]:
        """Return the quartiles of each contestant, times ``scale``."""
        return {
            name: quartiles([scale * x for x in values])
            for name, values in self.values.items()
        }

    def rates(self, count: int) -> dict[Any, dict]:
        """Return quartiles of ``count`` per second, of values in seconds."""
        return {
            name: quartiles([count / x for x in values])
            for name, values in self.values.items()
        }

    def ratios(self, pairs: Mapping[str, tuple]) -> dict[str, dict]:
        """Return by name the ratio of two contestants, if both were measured.

        Args:
            pairs (Mapping[str, tuple]): Name -> numerator, denominator.
        """
        values = self.values
        return {
            name: ratio(values[a], values[b])
            for name, (a, b) in pairs.items()
            if a in values and b in values
        }


def title(name: Any) -> str:
    """Write the name of a contestant, which may be a tuple."""
    return ', '.join(map(str, name if isinstance(name, tuple) else [name]))


def contest(
    builders: Mapping[Any, Callable[[], Measure]],
    rounds: int,
    budget: Budget | None = None,
    warmup: int = 1,
    save: Callable[[Contest], None] = lambda _: None,
) -> Contest:
    """Measure in turns, so background load affects all contestants alike.

    Each contestant is built, warmed up and measured once, so there is a
    result if no time is left for rounds. The order rotates between rounds.

    Args:
        builders (Mapping[Any, Callable]): By name, a function that returns a
            function that measures once.
        rounds (int): Number of rounds.
        budget (Budget, optional): A contestant that is not ready in time is
            left out, and so are rounds that would not end in time. Defaults
            to no limit.
        warmup (int): Unused measurements of each contestant. Defaults to 1.
        save (Callable): Called with the results so far when a contestant is
            ready.
    """
    budget = budget or Budget()
    result, ready, spent = Contest(), {}, {}
    # Others wait until all are ready.
    building = Budget(budget.left() * (0.6 if are_taken() else 1))
    with preparing():
        for name, build in builders.items():
            if building.left() <= 0:
                result.left_out[title(name)] = 'no time was left'
                continue
            try:
                with building.limit():
                    measure = build()
                    for _ in range(warmup):
                        measure()
                    start = time.monotonic()
                    value = measure()
            except OutOfTime:
                result.left_out[title(name)] = 'was not ready in time'
                continue
            except Exception as error:  # of a compiler, a driver, any library
                traceback.print_exc()
                result.left_out[title(name)] = f'{FAILED}{error}'[:2000]
                continue
            spent[name] = time.monotonic() - start
            ready[name], result.values[name] = measure, [value]
            save(result)
    with ExitStack() as turn:
        try:
            with budget.limit():
                turn.enter_context(measuring())
        except OutOfTime:
            result.left_out['rounds'] = f'{rounds} of {rounds}'
            return result
        values = _take_turns(ready, spent, rounds, budget, result.left_out)
    if any(values.values()):
        result.values = values
    return result


def _take_turns(
    ready: Mapping[Any, Measure],
    spent: dict[Any, float],
    rounds: int,
    budget: Budget,
    left_out: dict[str, str],
) -> dict[Any, list[float]]:
    """Measure in rounds, while there is time.

    Args:
        ready (Mapping[Any, Callable]): What measures, by contestant.
        spent (dict[Any, float]): Seconds of the last measurement.
        rounds (int): Number of rounds.
        budget (Budget): The time.
        left_out (dict[str, str]): Gets an entry, if rounds are left out.
    """
    names, values = list(ready), {name: [] for name in ready}
    for index in range(rounds):
        if not names or budget.left() < 1.2 * sum(spent.values()):
            left_out['rounds'] = f'{rounds - index} of {rounds}'
            break
        first = index % len(names)
        for name in names[first:] + names[:first]:
            start = time.monotonic()
            values[name].append(ready[name]())
            spent[name] = time.monotonic() - start
    return values
