"""Run stages in processes of their own, several at a time.

The demo's networks are too small to profit from a second thread; a second
process nearly doubles the throughput of two cores.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
from threadpoolctl import threadpool_limits

from .display import Display
from .interrupt import SafeInterrupt
from .stages import Stage

# As torch chose them, from the cores or OMP_NUM_THREADS.
CORES = torch.get_num_threads()
# No more stages than these are ever independent of each other.
MAX_JOBS = 4
# Seconds between two checks for a signal.
POLL_SECONDS = 0.3
# Forking spares each stage the seconds that the imports take. It is safe: the
# parent has one thread and does not compute.
CONTEXT = multiprocessing.get_context('fork')


class StageError(RuntimeError):
    """A stage failed; the message has its traceback or exit status."""


@dataclass
class _Running:
    stage: Stage
    process: BaseProcess
    pipe: Connection
    finished: bool = False


class StagePool:
    """Run the stages that are not finished.

    After a signal (Ctrl-C) or the failure of a stage, running stages stop at
    a safe point; a second signal stops them at once.

    Args:
        stages (list[Stage]): In the order in which they are started.
        display (Display): Shows the progress.
        jobs (int, optional): Stages at a time. Defaults to the number of
            cores, at most 4.
    """

    def __init__(
        self, stages: list[Stage], display: Display, jobs: int | None = None
    ) -> None:
        self.stages = stages
        self.display = display
        self.jobs = jobs or min(CORES, MAX_JOBS)
        self._waiting = [s for s in stages if s.state != 'finished']
        self._running: dict[str, _Running] = {}
        self._stopping = False
        self._failure = ''

    def run(self) -> None:
        """Run the stages.

        Raises:
            KeyboardInterrupt: After SIGINT or SIGTERM.
            StageError: If a stage failed.
        """
        with (
            self.display.show(self.stages, self.jobs),
            SafeInterrupt() as interrupt,
        ):
            try:
                self._loop(interrupt)
            finally:
                for running in self._running.values():
                    running.process.kill()
        interrupt.check()
        if self._failure:
            raise StageError(self._failure)

    def _loop(self, interrupt: SafeInterrupt) -> None:
        while self._running or (self._waiting and not self._stopping):
            if interrupt.requested:
                self._stop()
            if not self._stopping:
                self._start_ready()
            pipes = {r.pipe: r for r in self._running.values()}
            for pipe in wait(list(pipes), timeout=POLL_SECONDS):
                self._receive(pipes[pipe])
            self.display.refresh()

    def _start_ready(self) -> None:
        unfinished = {s.name for s in self._waiting} | set(self._running)
        for stage in list(self._waiting):
            if len(self._running) == self.jobs:
                return
            if unfinished.isdisjoint(need.name for need in stage.needs):
                self._waiting.remove(stage)
                self._start(stage)

    def _start(self, stage: Stage) -> None:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        threads = max(1, CORES // self.jobs)
        process = CONTEXT.Process(target=work, args=(stage, threads, theirs))
        # Blocked until the child has installed its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, SafeInterrupt.SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SafeInterrupt.SIGNALS)
        theirs.close()
        self._running[stage.name] = _Running(stage, process, ours)
        self.display.begin(stage.name)

    def _receive(self, running: _Running) -> None:
        try:
            kind, *content = running.pipe.recv()
        except EOFError:
            self._end(running)
            return
        if kind == 'update':
            self.display.update(running.stage.name, *content)
        elif kind == 'failed':
            self._fail(running.stage, content[0])
        else:
            running.finished = True

    def _end(self, running: _Running) -> None:
        name = running.stage.name
        del self._running[name]
        running.process.join()
        running.pipe.close()
        self.display.end(name, running.finished)
        if not running.finished and not self._stopping:
            code = running.process.exitcode
            how = f'with status {code}' if code >= 0 else f'by signal {-code}'
            self._fail(running.stage, f'its process was ended {how}')

    def _fail(self, stage: Stage, why: str) -> None:
        self._stop()
        log = stage.folder / 'console.log'
        self._failure = self._failure or (
            f'stage {stage.name} failed, its output is in {log}:\n{why}'
        )

    def _stop(self) -> None:
        """Ask the running stages to stop at a safe point."""
        if not self._stopping:
            self._stopping = True
            for running in self._running.values():
                running.process.terminate()


def work(stage: Stage, threads: int, pipe: Connection) -> None:
    """Run a stage; the main function of its process.

    Sends ``('update', fraction, status, milestone)`` any number of times,
    then ``('finished',)`` or ``('failed', traceback)``; nothing after an
    interruption.

    Args:
        stage (Stage): The stage.
        threads (int): Number of threads to compute with.
        pipe (Connection): To the parent.
    """
    # The parent alone gets the terminal's Ctrl-C and passes it on.
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SafeInterrupt.SIGNALS)

    def report(fraction: float, status: str, milestone: bool = False) -> None:
        # Without a parent this raises BrokenPipeError, and the stage ends.
        pipe.send(('update', fraction, status, milestone))

    torch.set_num_threads(threads)
    try:
        # For scikit-learn; torch has its own setting.
        with threadpool_limits(threads):
            stage.prepare()
            _redirect_output(stage)
            start = time.monotonic()
            result = stage.run(report)
            result.setdefault('seconds', round(time.monotonic() - start, 1))
            stage.finish(dict(result, ended=round(time.time(), 1)))
        pipe.send(('finished',))
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    except Exception:
        pipe.send(('failed', traceback.format_exc()))


def _redirect_output(stage: Stage) -> None:
    """Append all output, including that of C libraries, to a log file."""
    with open(stage.folder / 'console.log', 'ab') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Tests and notebooks replace these by objects that are not files.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.stdout.reconfigure(line_buffering=True)
