"""Plan and live progress in the terminal."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from .plan import Job, last_checkpoint
from .records import Results


class Display:
    """Bars in a terminal, lines elsewhere.

    Args:
        console (Console): Where to.
        jobs (list[Job]): All jobs.
        results (Results): Records so far.
        gpus (int): Processes of a training.
    """

    def __init__(
        self, console: Console, jobs: list[Job], results: Results, gpus: int
    ) -> None:
        self.console = console
        self.gpus = gpus
        self._noted: set[str] = set()
        self._number = {job.key: n for n, job in enumerate(jobs, 1)}
        done = sum(results.finished(job.key) for job in jobs)
        self._bars = Progress(
            TextColumn('{task.description}', markup=False),
            *(BarColumn(bar_width=20), MofNCompleteColumn()),
            TimeElapsedColumn(),
            TextColumn('{task.fields[status]}', markup=False),
            console=console,
            disable=not console.is_terminal,
            # Drawn by refresh(): there must be no other thread.
            auto_refresh=False,
        )
        self._all = self._bars.add_task(
            'all', total=len(jobs), completed=done, status=''
        )
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> 'Display':
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line, above the bars."""
        say(self.console, text)

    def note(self, text: str) -> None:
        """Print a line once."""
        if text not in self._noted:
            self._noted.add(text)
            self.say(text)

    def begin(self, job: Job) -> None:
        """A job starts, or resumes."""
        state = 'resumes' if _started(job) else 'starts'
        total = len(self._number)
        self.say(f'[{self._number[job.key]}/{total}] {job.title} {state}')
        self._tasks[job.key] = self._bars.add_task(
            job.title, total=job.steps(self.gpus) or None, status=''
        )

    def update(self, job: Job, step: int, text: str) -> None:
        """A job has reached a step."""
        self._bars.update(self._tasks[job.key], completed=step, status=text)

    def end(self, job: Job, state: str) -> None:
        """A job has ended."""
        self.say(f'[{self._number[job.key]}] {job.title}: {state}')
        task = self._tasks.pop(job.key, None)
        if task is not None:
            self._bars.remove_task(task)
        self._bars.advance(self._all)

    def refresh(self) -> None:
        """Draw the bars."""
        self._bars.refresh()


def say(console: Console, text: str) -> None:
    """Print a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def plan_table(
    jobs: list[Job], results: Results, gpus: int
) -> tuple[Table, str]:
    """The plan as a table, and a line on its cost."""
    table = Table(title='Plan')
    for name in ('Variant', 'Run', 'Seeds', 'State', 'Steps', 'Time left'):
        side = 'right' if name in ('Steps', 'Time left') else 'left'
        table.add_column(name, justify=side, overflow='fold')
    rows: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        rows.setdefault((job.variant.name, job.evaluation), []).append(job)
    total = Cost()
    for (variant, evaluation), same in rows.items():
        cost = cost_of(same, results, gpus)
        states = Counter(job_state(job, results) for job in same)
        table.add_row(
            *(variant, evaluation, ', '.join(str(job.seed) for job in same)),
            ', '.join(f'{count} {state}' for state, count in states.items()),
            _steps_text(same, gpus),
            duration(cost.seconds) if cost.seconds else '',
        )
        total += cost
    text = f'{total.runs} of {len(jobs)} runs are left, {total.steps} steps'
    if total.seconds:
        text += f', about {duration(total.seconds)} one after another'
    if total.unknown:
        text += (
            f'; of {total.unknown} runs the duration is unknown until one of '
            'their kind has finished'
        )
    return table, text + '.'


@dataclass(frozen=True)
class Cost:
    """What is left to do: runs, training steps, seconds."""

    runs: int = 0
    steps: int = 0
    seconds: float = 0.0
    unknown: int = 0  # runs of unknown duration

    def __add__(self, other: 'Cost') -> 'Cost':
        return Cost(
            self.runs + other.runs,
            self.steps + other.steps,
            self.seconds + other.seconds,
            self.unknown + other.unknown,
        )


def cost_of(jobs: list[Job], results: Results, gpus: int) -> Cost:
    """The cost of the jobs that have no result."""
    cost = Cost()
    for job in jobs:
        if not results.finished(job.key):
            seconds = estimate(job, results.records, gpus)
            cost += Cost(
                1, job.steps(gpus) or 0, seconds or 0.0, seconds is None
            )
    return cost


def _steps_text(jobs: list[Job], gpus: int) -> str:
    """Steps of a run, the same for all seeds."""
    steps = jobs[0].steps(gpus)
    return 'unknown' if steps is None else str(steps or '')


def job_state(job: Job, results: Results) -> str:
    """'done', 'failed', 'started' (resumes) or 'waiting'."""
    record = results.latest.get(job.key)
    if record is not None:
        return record['status']
    return 'started' if _started(job) else 'waiting'


def estimate(job: Job, records: Iterable[dict], gpus: int) -> float | None:
    """Seconds of a job, from those of the same kind that have finished."""
    done = [
        record
        for record in records
        if record['status'] == 'done'
        and record['evaluation'] == job.evaluation
    ]
    own = [r for r in done if r['variant'] == job.variant.name] or done
    steps = job.steps(gpus)
    if steps:
        paces = [r['seconds'] / r['steps'] for r in own if r['steps']]
        return steps * fmean(paces) if paces else None
    return fmean(r['seconds'] for r in own) if own else None


def duration(seconds: float) -> str:
    """'45 s', '3 min 20 s' or '1 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f'{seconds} s'
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f'{minutes} min {rest:02d} s'
    return f'{minutes // 60} h {minutes % 60:02d} min'


def _started(job: Job) -> bool:
    return last_checkpoint(job.folder) is not None
