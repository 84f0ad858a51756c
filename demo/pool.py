"""Run stages in processes of their own, several at a time.

The demo's networks are too small for a second thread to help, and a second
process nearly doubles what two cores get done.
"""

import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from mmunimoco.utils.progress import ProgressDisplay

from .interrupt import SafeInterrupt
from .stages import Stage
from .worker import DONE, FAILED, UPDATE, work

# As torch found them, from the cores or OMP_NUM_THREADS.
CORES = torch.get_num_threads()
# More stages than that are never independent of each other.
MOST_JOBS = 4
# Seconds between two looks at whether the user has had enough.
PATIENCE = 0.3
# Forked, to spare each stage the seconds that all imports take. That is safe
# here: this process has one thread and does not compute.
CONTEXT = multiprocessing.get_context('fork')


class StageError(RuntimeError):
    """A stage failed; the message has its traceback, or how it ended."""


@dataclass
class _Running:
    stage: Stage
    process: BaseProcess
    pipe: Connection
    done: bool = False


class StagePool:
    """Run what is not finished of some stages.

    A signal (Ctrl-C), like the failure of a stage, has the running stages
    stop where nothing is half done; a second signal stops them at once.

    Args:
        stages (list[Stage]): In the order in which they are started.
        display (ProgressDisplay): Who is told.
        jobs (int, optional): Stages at a time. Defaults to the number of
            cores, at most 4.

    Raises:
        ValueError: If ``jobs`` is less than 1.
    """

    def __init__(
        self,
        stages: list[Stage],
        display: ProgressDisplay,
        jobs: int | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f'--jobs must be 1 or more, got {jobs}')
        self.stages = stages
        self.display = display
        self.jobs = jobs or min(CORES, MOST_JOBS)
        self._waiting = [s for s in self.stages if not s.finished]
        self._running: dict[str, _Running] = {}
        self._stopping = False
        self._failure = ''

    def run(self) -> None:
        """Run the stages.

        Raises:
            KeyboardInterrupt: After SIGINT or SIGTERM.
            StageError: If a stage failed.
        """
        titles = {stage.name: stage.title for stage in self.stages}
        weights = {stage.name: stage.weight for stage in self._waiting}
        with (
            self.display.plan(titles, weights, self.jobs),
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
            for pipe in wait(list(pipes), timeout=PATIENCE):
                self._receive(pipes[pipe])
            self.display.refresh()

    def _start_ready(self) -> None:
        missing = {s.name for s in self._waiting} | set(self._running)
        for stage in list(self._waiting):
            if len(self._running) == self.jobs:
                return
            if missing.isdisjoint(stage.after):
                self._waiting.remove(stage)
                self._start(stage)

    def _start(self, stage: Stage) -> None:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        threads = max(1, CORES // self.jobs)
        process = CONTEXT.Process(target=work, args=(stage, threads, theirs))
        # Until the process has handlers of its own.
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
        if kind == UPDATE:
            self.display.update(running.stage.name, *content)
        elif kind == FAILED:
            self._fail(running.stage, content[0])
        running.done = running.done or kind == DONE

    def _end(self, running: _Running) -> None:
        name = running.stage.name
        del self._running[name]
        running.process.join()
        running.pipe.close()
        if running.done:
            self.display.complete(name)
            return
        self.display.end(name)
        if not self._stopping:
            code = running.process.exitcode
            how = f'with status {code}' if code >= 0 else f'by signal {-code}'
            self._fail(running.stage, f'its process was ended {how}')

    def _fail(self, stage: Stage, why: str) -> None:
        self._stop()
        log = stage.store.folder / 'console.log'
        self._failure = self._failure or (
            f'the stage {stage.name} failed, its output is in {log}:\n{why}'
        )

    def _stop(self) -> None:
        """Have what is running come to an end; it stops at a safe point."""
        if not self._stopping:
            self._stopping = True
            for running in self._running.values():
                running.process.terminate()
