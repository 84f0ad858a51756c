"""A run that is watched: its steps, its memory, and that it goes on."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .comparison import first_difference
from .memory import Sample
from .processes import Process, find_leftovers
from .record import Start
from .step_log import StepLog
from .training import Training

# Without a step for so long a run hangs: validations and starts are slower
# than steps, and a busy machine is slower still.
PATIENCE = 180.0
# Processes end for so long after the one that started them.
FAREWELL = 30.0
SAMPLE_EVERY = 0.5
_TICK = 0.02


class HangsError(Exception):
    """Nothing happened for a long time."""


class WatchedRun:
    """A run in a work folder, started as often as it takes.

    Args:
        root (Path): The checkout.
        folder (Path): For logs and files of steps; the work folder is in it.
        config (Path): What to train.
        processes (int): How many train.
        clock (Callable[[], float]): Seconds since the soak began.
        show (Callable[[int], None]): Gets the step now and then.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        config: Path,
        processes: int,
        clock: Callable[[], float],
        show: Callable[[int], None],
    ) -> None:
        self.root, self.folder, self.config = root, folder, config
        self.processes = processes
        self.clock, self.show = clock, show
        self.work_dir = folder / 'work'
        self.work_dir.mkdir(parents=True)
        self.samples: list[Sample] = []
        self.steps: StepLog | None = None
        self.training: Training | None = None
        self.ended: dict[int, float] = {}  # Sessions, and when.
        self.outlived: set[str] = set()
        self._started = self._heard = self._sampled = 0.0
        self._number = -1

    def start(self, resume: bool) -> Training:
        """Start the run, once the last start has ended."""
        self.look_for_leftovers()
        self._number += 1
        self._started = self._heard = self.clock()
        self.training = Training(
            self.root,
            self.config,
            self.work_dir,
            self.folder / f'start_{self._number:03d}',
            self.processes,
            resume,
        )
        self.steps = StepLog(self.training.steps_file)
        self.seconds_to_train = None
        return self.training

    @property
    def step(self) -> int:
        """Steps done, as far as is known."""
        return self.steps.step

    def tick(self, pause: float = _TICK) -> None:
        """Look at everything, and wait for a moment.

        Raises:
            HangsError: If there was no step for a long time.
        """
        now = self.clock()
        if self.steps.update():
            self._heard = now
            if self.seconds_to_train is None:
                self.seconds_to_train = now - self._started
            self.show(self.step)
        if now - self._heard > PATIENCE:
            raise HangsError(f'no step for {PATIENCE:.0f} s')
        if now - self._sampled > SAMPLE_EVERY:
            self._sampled = now
            self._sample(now)
            self.show(self.step)
        time.sleep(pause)

    def wait(
        self, condition: Callable[[], bool], pause: float = _TICK
    ) -> bool:
        """Wait until something is so.

        Args:
            condition (Callable[[], bool]): What to wait for.
            pause (float): Seconds between two looks.

        Returns:
            bool: False if the run ended before.
        """
        while not condition():
            if not self.training.is_running():
                return condition()
            self.tick(pause)
        return True

    def finish(self, start: Start, undisturbed: list[str] | None) -> None:
        """Wait for the end and note down how it went.

        Args:
            start (Start): Where to.
            undisturbed (list[str] | None): Losses to compare with.
        """
        try:
            self.wait(lambda: False)
        except HangsError:
            start.hung = True
            self.training.end()
        self.steps.update()
        for session in self.training.sessions:
            self.ended[session] = self.clock()
        start.codes = self.training.codes
        start.seconds = round(self.clock() - self._started, 1)
        if self.seconds_to_train is not None:
            start.seconds_to_train = round(self.seconds_to_train, 1)
        if self.steps.first is not None:
            start.first, start.last = self.steps.first, self.step
            start.odd_steps = self.steps.faults
            if undisturbed is not None:
                start.first_other_loss = first_difference(
                    undisturbed, start.first, self.steps.losses
                )
        start.read_log(self.training.said())

    def look_for_leftovers(self) -> list[Process]:
        """Find what is left of starts that have ended.

        What is there for longer than a farewell takes is noted down.
        """
        late = self.clock() - FAREWELL
        left = find_leftovers(self.ended)
        self.outlived |= {
            f'{p.command.decode(errors="replace")} ({p.pid}, {p.state})'
            for p in left
            if self.ended[p.session] < late
        }
        # Once nothing is left the number may become another session's.
        sessions = {process.session for process in left}
        self.ended = {
            session: when
            for session, when in self.ended.items()
            if session in sessions
        }
        return left

    def say_farewell(self) -> None:
        """Wait until nothing is left, or for as long as that may take."""
        until = self.clock() + FAREWELL + 1
        while self.look_for_leftovers() and self.clock() < until:
            time.sleep(0.2)

    def close(self) -> None:
        """Have no process left."""
        if self.training is not None:
            self.training.end()
        for process in self.look_for_leftovers():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _sample(self, now: float) -> None:
        mains = set(self.training.sessions)
        found = self.training.find()
        self.samples.append(
            Sample(
                seconds=now,
                start=self._number,
                step=self.step,
                main=sum(p.rss for p in found if p.pid in mains),
                workers=sum(p.rss for p in found if p.pid not in mains),
            )
        )
