"""Progress on the terminal: bars where it is one, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from .estimate import Estimate, format_duration


class Reporter(Protocol):
    """Whom a running stage tells how far it is."""

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


class ProgressDisplay:
    """Show how far several running stages are.

    Args:
        console (Console): Where to write. Bars are drawn if it is an
            interactive terminal; otherwise there is a line an epoch.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._titles: dict[str, str] = {}
        self._estimate = Estimate({})
        self._bars = None
        self._everything = None
        self._tasks = {}

    def say(self, text: str) -> None:
        """Write a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def plan(
        self, titles: dict[str, str], weights: dict[str, float], jobs: int
    ) -> Iterator[None]:
        """Show progress while the context lasts.

        Args:
            titles (dict[str, str]): Name of each stage, finished ones too ->
                what the user reads.
            weights (dict[str, float]): Name of each stage that is to run ->
                guessed seconds.
            jobs (int): How many run at a time.
        """
        count = len(titles)
        self._titles = {
            name: f'[{index}/{count}] {title}'
            for index, (name, title) in enumerate(titles.items(), 1)
        }
        self._estimate = Estimate(weights, jobs)
        if self.console.is_terminal and weights:
            with _make_bars(self.console) as self._bars:
                self._everything = self._bars.add_task(
                    'all stages', total=1.0, left=''
                )
                yield
            self._bars = None
        else:
            yield

    def begin(self, name: str) -> None:
        """Announce a stage of the plan."""
        if self._bars is not None:
            self._tasks[name] = self._bars.add_task(
                self._titles[name], total=1.0, left=''
            )
        self.update(name, 0.0, 'starting', milestone=True)

    def update(
        self, name: str, fraction: float, status: str, milestone: bool = False
    ) -> None:
        """Show how far a stage is; see :meth:`Reporter.update`."""
        self._estimate.advance(name, fraction)
        left = f'{format_duration(self._estimate.seconds_left)} left'
        if self._bars is not None:
            self._bars.update(
                self._everything, completed=self._estimate.fraction, left=left
            )
            self._bars.update(
                self._tasks[name],
                completed=fraction,
                left=status,
            )
        elif milestone:
            self.say(f'{self._titles[name]}: {status} (about {left})')

    def refresh(self) -> None:
        """Draw the bars, a few times a second."""
        if self._bars is not None:
            self._bars.refresh()

    def complete(self, name: str) -> None:
        """Show that a stage is done."""
        self.update(name, 1.0, 'done', milestone=True)
        self.end(name)

    def end(self, name: str) -> None:
        """Take the bar of a stage away, done or not."""
        if self._bars is not None:
            self._bars.remove_task(self._tasks.pop(name))


def _make_bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn('{task.description}', markup=False),
        BarColumn(bar_width=24),
        TextColumn('{task.percentage:>3.0f} %'),
        TimeElapsedColumn(),
        TextColumn('{task.fields[left]}', markup=False),
        console=console,
        # By refresh(): no thread, which a process that forks must not have.
        auto_refresh=False,
    )
