"""Progress on the terminal: bars where it is one, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from .estimate import Estimate, format_duration


@dataclass(frozen=True)
class PlannedStage:
    """A stage as the user sees it.

    Args:
        title (str): What it does.
        weight (float): Guessed seconds.
        finished (bool): Whether there is nothing left to do.
    """

    title: str
    weight: float
    finished: bool


class Reporter:
    """Tell the user what is going on.

    Args:
        console (Console): Where to write. Bars are drawn if it is an
            interactive terminal; otherwise there is a line an epoch.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._plan = []
        self._estimate = Estimate([])
        self._bars = None
        self._tasks = ()
        self._index = 0

    def say(self, text: str) -> None:
        """Write a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def plan(self, stages: list[PlannedStage]) -> Iterator[None]:
        """Show progress over these stages while the context lasts."""
        self._plan = stages
        self._estimate = Estimate([s.weight for s in stages if not s.finished])
        if self.console.is_terminal and self._estimate.total:
            with _make_bars(self.console) as self._bars:
                self._tasks = (
                    self._bars.add_task('all stages', total=1.0, left=''),
                    self._bars.add_task('', total=1.0, left=''),
                )
                yield
            self._bars = None
        else:
            yield

    @contextmanager
    def stage(self, index: int) -> Iterator[None]:
        """Announce a stage of the plan; it is done when the context ends."""
        self._index = index
        self._draw(0.0, 'starting', milestone=True)
        yield
        self._estimate.complete(self._plan[index].weight)
        self._draw(1.0, 'done', milestone=True)

    def update(
        self, fraction: float, status: str, milestone: bool = False
    ) -> None:
        """Report how far the stage is.

        Args:
            fraction (float): Done part of the stage, 0 ... 1.
            status (str): A few words: epoch, loss.
            milestone (bool): Whether it is worth a line where there are no
                bars. Defaults to False.
        """
        self._estimate.advance(self._plan[self._index].weight, fraction)
        self._draw(fraction, status, milestone)

    def _draw(self, fraction: float, status: str, milestone: bool) -> None:
        title = self._plan[self._index].title
        number = f'[{self._index + 1}/{len(self._plan)}]'
        left = f'{format_duration(self._estimate.seconds_left)} left'
        if self._bars is not None:
            everything, current = self._tasks
            done = self._estimate.fraction
            self._bars.update(everything, completed=done, left=left)
            self._bars.update(
                current,
                completed=fraction,
                description=f'{number} {title}',
                left=status,
                refresh=milestone,
            )
        elif milestone:
            self.say(f'{number} {title}: {status} (about {left})')


def _make_bars(console: Console) -> Progress:
    # Output of the stages goes to their logs; nothing else may be captured.
    return Progress(
        SpinnerColumn(),
        TextColumn('{task.description}', markup=False),
        BarColumn(bar_width=24),
        TextColumn('{task.percentage:>3.0f} %'),
        TimeElapsedColumn(),
        TextColumn('{task.fields[left]}', markup=False),
        console=console,
        redirect_stdout=False,
        redirect_stderr=False,
    )
