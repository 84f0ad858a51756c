"""Run jobs as processes, several at a time, and record what they give.

All of this happens in one thread: on Linux a child is told when the thread
that started it dies (``PR_SET_PDEATHSIG``), so that a study that is killed
leaves no training behind.
"""

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mmunimoco.engine.checks.work_folder import lock_folder
from mmunimoco.engine.preemption import REQUEUE
from mmunimoco.utils.atomic import write_json
from mmunimoco.utils.versions import count_cores

from .outcome import (
    OWN_CHECKPOINT,
    is_probe,
    read_result,
    record_of,
    write_commands,
)
from .plan import Job, last_checkpoint
from .process import start_process
from .progress import Display
from .protocols import PACKAGE
from .records import Results, log_tail, read_progress
from .scores import number

# Preempted this often without an end, a run counts as failed.
_MAX_REQUEUES = 20
_CLOCK_SECONDS = 5  # between two looks at a run's log


@dataclass
class Options:
    """How to run.

    Attributes:
        parallel: Jobs at a time.
        devices: Values for ``CUDA_VISIBLE_DEVICES``; empty to leave it.
        gpus: Processes of a training.
        slurm_args: Options of srun; None to run here.
        grace: Seconds that a run has to save when the study is stopped.
    """

    parallel: int = 1
    devices: tuple[str, ...] = ()
    gpus: int = 1
    slurm_args: str | None = None
    grace: float = 120.0


@dataclass(eq=False)
class _Running:
    job: Job
    devices: tuple[str, ...]
    commands: list[list[str]]
    console: IO
    seconds: float  # of earlier attempts
    process: Any = None  # of start_process
    started: float = field(default_factory=time.monotonic)
    requeues: int = 0
    looked: float = 0.0

    @property
    def elapsed(self) -> float:
        return round(self.seconds + time.monotonic() - self.started, 1)


class Pool:
    """Run the jobs that have no result.

    Args:
        jobs (list[Job]): Each stands behind what it needs.
        results (Results): Gets a record for each job that ends.
        options (Options): How to run.
        display (Display): Shows the progress.
        environment (dict): ``versions``, ``machine`` and ``git``.
        work_dir (Path): Paths in records are relative to it.
    """

    def __init__(
        self,
        jobs: list[Job],
        results: Results,
        options: Options,
        display: Display,
        environment: dict[str, Any],
        work_dir: Path,
    ) -> None:
        self.results = results
        self.options = options
        self.display = display
        self.environment = environment
        self.work_dir = work_dir
        self.waiting = [j for j in jobs if not results.finished(j.key)]
        self.running: list[_Running] = []
        self.failed: list[Job] = []
        self.free = list(options.devices)

    def run(self) -> list[Job]:
        """Run until nothing is left.

        Returns:
            list[Job]: Those that failed, or whose pre-training failed.

        Raises:
            KeyboardInterrupt: After the running jobs have saved and ended.
        """
        try:
            while self.waiting or self.running:
                self._start_some()
                for one in list(self.running):
                    self._poll(one)
                self.display.refresh()
                time.sleep(0.1)
        finally:
            if self.running:  # interrupted, or a fault of this program
                self._stop_all()
        return self.failed

    def _start_some(self) -> None:
        for job in list(self.waiting):
            if len(self.running) >= self.options.parallel:
                return
            if job.needs in self.failed:
                self.waiting.remove(job)
                self.failed.append(job)
                self.display.end(job, 'left out, its pre-training failed')
            elif job.needs is None or self.results.finished(job.needs.key):
                self._start(job)

    def _start(self, job: Job) -> None:
        gpus = self._gpus(job)
        if self.options.devices and len(self.free) < gpus:
            return
        try:
            lock = lock_folder(job.folder)
        except BlockingIOError as error:  # a killed study's run, still saving
            self.display.note(f'{job.title} waits: {error}')
            return
        if lock is not None:
            lock.close()
        self.waiting.remove(job)
        self.display.begin(job)
        try:
            commands = write_commands(job, gpus, self.options.slurm_args)
        except ValueError as error:
            self._fail(job, 0.0, [str(error)])
            return
        devices = tuple(self.free[:gpus])
        del self.free[: len(devices)]
        one = _Running(
            *(job, devices, commands),
            console=(job.folder / 'console.log').open('ab'),
            seconds=_read_clock(job.folder),
        )
        self._spawn(one)
        self.running.append(one)

    def _gpus(self, job: Job) -> int:
        return 1 if is_probe(job) else self.options.gpus

    def _spawn(self, one: _Running) -> None:
        own = last_checkpoint(one.job.folder)
        environment = dict(os.environ)
        paths = (str(PACKAGE.parent), os.environ.get('PYTHONPATH'))
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
        if one.devices:
            environment['CUDA_VISIBLE_DEVICES'] = ','.join(one.devices)
        if self.options.parallel > 1 and self.options.slurm_args is None:
            cores = count_cores() // self.options.parallel
            environment.setdefault('OMP_NUM_THREADS', str(max(1, cores)))
        one.process = start_process(
            [str(own) if x == OWN_CHECKPOINT else x for x in one.commands[0]],
            *(one.console, environment),
        )

    def _poll(self, one: _Running) -> None:
        status = one.process.poll()
        if time.monotonic() - one.looked > _CLOCK_SECONDS:
            one.looked = time.monotonic()
            _write_clock(one)
            self.display.update(one.job, *read_progress(one.job.folder))
        if status is None:
            return
        if status == REQUEUE and one.requeues < _MAX_REQUEUES:
            one.requeues += 1
            self._spawn(one)  # preempted: resumes
            return
        if status == 0 and len(one.commands) > 1:
            del one.commands[0]
            self._spawn(one)
            return
        self._release(one)
        try:
            if status != 0:
                raise ValueError(f'exit status {status}')
            found = read_result(one.job)
        except ValueError as error:
            lines = log_tail(one.job.folder) if status else []
            self._fail(one.job, one.elapsed, [*lines, str(error)])
            return
        self._record(one.job, status='done', seconds=one.elapsed, **found)
        scores = (
            f'{name} {number(value["last"])}'
            for name, value in found['metrics'].items()
            if name in one.job.settings.get('metrics', (name,))
        )
        self.display.end(one.job, ', '.join(['done', *scores]))

    def _release(self, one: _Running) -> None:
        _write_clock(one)
        one.console.close()
        self.running.remove(one)
        self.free.extend(one.devices)

    def _fail(self, job: Job, seconds: float, tail: list[str]) -> None:
        self.failed.append(job)
        self._record(
            job, status='failed', seconds=seconds, metrics={}, tail=tail
        )
        self.display.end(job, 'FAILED')
        for line in (*tail[-4:], f'log: {job.folder / "console.log"}'):
            self.display.say(f'    {line}')

    def _record(self, job: Job, **found: Any) -> None:
        self.results.append(
            record_of(
                *(job, self._gpus(job), self.work_dir, self.environment),
                **found,
            )
        )

    def _stop_all(self) -> None:
        """Let all runs save; those that do not end are killed."""
        self.display.say(
            f'Stopping: {len(self.running)} runs save their state (press '
            'Ctrl-C again not to wait).'
        )
        deadline = time.monotonic() + self.options.grace
        for one in self.running:
            # Not to its data loader workers, which it needs to save.
            one.process.terminate()
        with contextlib.suppress(KeyboardInterrupt):
            while time.monotonic() < deadline and any(
                one.process.poll() is None for one in self.running
            ):
                time.sleep(0.1)
        for one in list(self.running):
            if one.process.poll() is None:
                os.killpg(one.process.pid, signal.SIGKILL)
                one.process.wait()
            self._release(one)


def _clock_of(folder: Path) -> Path:
    # Beside the folder: in it, a run that starts removes what it takes for a
    # checkpoint that was cut off.
    return folder.with_name(f'{folder.name}.clock.json')


def _write_clock(one: _Running) -> None:
    write_json(_clock_of(one.job.folder), dict(seconds=one.elapsed))


def _read_clock(folder: Path) -> float:
    """Seconds of earlier attempts; of a killed one the last may be missing."""
    path = _clock_of(folder)
    return json.loads(path.read_text())['seconds'] if path.is_file() else 0.0
