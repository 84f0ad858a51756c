"""Progress of the stages: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from .stages import Stage

# Weight of the estimated durations against the measured pace.
PRIOR_SECONDS = 20.0


class Display:
    """Show the progress of several running stages.

    Args:
        console (Console): Bars are drawn if it is a terminal; otherwise a
            line is printed for each milestone.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def show(self, stages: list[Stage], jobs: int) -> Iterator[None]:
        """Show progress inside this context.

        Args:
            stages (list[Stage]): All stages, including finished ones.
            jobs (int): Number of stages that run at a time.
        """
        self._jobs = jobs
        self._start = time.monotonic()
        self._tasks = {}
        self._titles = {
            stage.name: f'[{number}/{len(stages)}] {stage.title}'
            for number, stage in enumerate(stages, 1)
        }
        waiting = [stage for stage in stages if stage.state != 'finished']
        self._seconds = {stage.name: stage.seconds for stage in waiting}
        self._done = dict.fromkeys(self._seconds, 0.0)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn('{task.description}', markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn('{task.fields[status]}', markup=False),
            console=self.console,
            disable=not (self.console.is_terminal and waiting),
            # The pool forks, so there must be no thread that draws.
            auto_refresh=False,
        )
        total = sum(self._seconds.values())
        self._all = self._bars.add_task('all stages', total=total, status='')
        with self._bars:
            yield

    def begin(self, name: str) -> None:
        """Announce a stage."""
        self._tasks[name] = self._bars.add_task(
            self._titles[name], total=1.0, status=''
        )
        self.update(name, 0.0, 'starting', milestone=True)

    def update(
        self, name: str, fraction: float, status: str, milestone: bool = False
    ) -> None:
        """Show how much of a stage is done, and a few words."""
        self._done[name] = fraction * self._seconds[name]
        self._bars.update(self._all, completed=sum(self._done.values()))
        left = f'{format_duration(self._seconds_left())} left'
        self._bars.update(self._all, status=left)
        self._bars.update(self._tasks[name], completed=fraction, status=status)
        if milestone and self._bars.disable:
            self.say(f'{self._titles[name]}: {status} (about {left})')

    def end(self, name: str, finished: bool) -> None:
        """Remove the bar of a stage."""
        if finished:
            self.update(name, 1.0, 'done', milestone=True)
        self._bars.remove_task(self._tasks.pop(name))

    def refresh(self) -> None:
        """Draw the bars; to be called a few times a second."""
        self._bars.refresh()

    def _seconds_left(self) -> float:
        task = self._bars.tasks[0]
        elapsed = time.monotonic() - self._start
        # At first the estimated durations count more than the measured pace.
        pace = (elapsed + PRIOR_SECONDS / self._jobs) / (
            task.completed + PRIOR_SECONDS
        )
        return task.remaining * pace


def format_duration(seconds: float) -> str:
    """Write a duration as '45 s', '3 min 20 s' or '1 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f'{seconds} s'
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f'{minutes} min {rest:02d} s'
    return f'{minutes // 60} h {minutes % 60:02d} min'
