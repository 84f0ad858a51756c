"""Measure, run undisturbed, run disturbed, compare."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmunimoco.utils.estimate import format_duration
from mmunimoco.utils.progress import ProgressDisplay
from mmunimoco.utils.safe_load import read_checkpoint

from .checkpoints import Checkpoints
from .comparison import NOT_COMPARED, differences
from .config import write_config
from .disturbance import Disturbance
from .images import write_images
from .memory import judge_memory, thin_out
from .plan import Costs, Plan, fit_plan, guess_seconds
from .record import Record, Start
from .run import HangsError, WatchedRun

# Steps from which a step's time is taken, after some that are slower.
_WARM_UP, _MEASURED = 5, 40
# Which numbers of checkpoints are kept depends on when SIGTERM came.
_NOT_COMPARED = (*NOT_COMPARED, 'keep_ckpt_ids')
_STAGES = dict(
    measure='time of a start and of a step',
    undisturbed='undisturbed run',
    disturbed='disturbed run',
    verdict='comparison',
)


class SoakError(Exception):
    """The soak itself could not be done."""


@dataclass(frozen=True)
class SoakSettings:
    """What the user chose.

    Args:
        root (Path): The checkout.
        folder (Path): Folder of this soak, which is made.
        minutes (float): How long it is to take.
        seed (int): Of the training and of the faults.
        processes (int): How many train.
        plan (Plan | None): Of an earlier soak, whatever the minutes.
    """

    root: Path
    folder: Path
    minutes: float
    seed: int
    processes: int
    plan: Plan | None = None


class Soak:
    """A soak.

    Args:
        settings (SoakSettings): What the user chose.
        display (ProgressDisplay): Shows how far it is.

    Attributes:
        plan (Plan): What was to happen.
        costs (Costs | None): What this machine takes, if it was measured.
        broken (list[str]): Images that are broken.
        samples (dict[str, list[dict]]): Memory of both runs.
    """

    def __init__(
        self, settings: SoakSettings, display: ProgressDisplay
    ) -> None:
        self.settings = settings
        self.display = display
        self.plan = settings.plan
        self.costs: Costs | None = None
        self.broken: list[str] = []
        self.samples: dict[str, list[dict[str, Any]]] = {}
        self._begin = time.monotonic()
        self._step_seconds = self._start_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Since the soak began."""
        return time.monotonic() - self._begin

    def run(self) -> Record:
        """Do it all.

        Returns:
            Record: What happened.

        Raises:
            SoakError: If the undisturbed run does not come to its end.
        """
        stages = dict(_STAGES)
        if self.plan is not None:
            del stages['measure']
        total = 60 * self.settings.minutes
        if self.plan is not None:
            total = guess_seconds(self.plan)
        weights = dict(measure=15, undisturbed=0.3 * total, verdict=3)
        weights['disturbed'] = 0.7 * total
        weights = {name: weights[name] for name in stages}
        with self.display.plan(stages, weights, jobs=1):
            if self.plan is None:
                self._stage('measure', self._measure)
            undisturbed = self._stage('undisturbed', self._run_undisturbed)
            record, run = self._stage(
                'disturbed', lambda: self._run_disturbed(*undisturbed)
            )
            self._stage(
                'verdict', lambda: self._compare(record, undisturbed[0], run)
            )
        return record

    def _stage(self, name: str, work: Callable[[], Any]) -> Any:
        self._stage_name = name
        self.display.begin(name)
        try:
            result = work()
        except BaseException:
            self.display.end(name)
            raise
        self.display.complete(name)
        return result

    def _new_run(self, name: str, plan: Plan) -> WatchedRun:
        folder = self.settings.folder / name
        folder.mkdir(parents=True)
        # The name of the config is in the checkpoint.
        config = folder / 'soak.py'
        images = self.settings.folder / 'images'
        if not images.is_dir():
            self.broken = write_images(images, plan.seed)
        write_config(
            config, self.settings.root, plan, images, len(self.broken)
        )
        return WatchedRun(
            self.settings.root,
            folder,
            config,
            plan.processes,
            lambda: self.seconds,
            lambda step: self._show(step, plan.steps),
        )

    def _show(self, step: int, steps: int) -> None:
        fraction = min(1.0, step / steps) if steps else 0.0
        self.display.update(
            self._stage_name, fraction, f'step {step} of {steps or "?"}'
        )
        self.display.refresh()

    def _tell(self, text: str) -> None:
        self.display.say(f'{format_duration(self.seconds)}: {text}')

    def _measure(self) -> None:
        """Train for a few steps, and make the plan."""
        settings = self.settings
        pilot = Plan(settings.seed, settings.processes, 1, 0, 20, ())
        run = self._new_run('measure', pilot)
        try:
            run.start(resume=False)
            run.wait(lambda: run.step >= _WARM_UP)
            begin = self.seconds, run.step
            run.wait(lambda: run.step >= _WARM_UP + _MEASURED)
            seconds, steps = self.seconds - begin[0], run.step - begin[1]
        except HangsError as error:
            raise SoakError(f'the first start hangs: {error}') from error
        finally:
            run.close()
        if not steps:
            raise SoakError(_end_of(run))
        self.costs = Costs(
            start=run.seconds_to_train,
            step=seconds / steps,
            steps_per_epoch=run.steps.total,
        )
        self.plan = fit_plan(
            60 * settings.minutes - self.seconds,
            self.costs,
            settings.seed,
            settings.processes,
        )
        self.display.say(
            f'A start takes {self.costs.start:.1f} s, a step '
            f'{1000 * self.costs.step:.0f} ms: {self.plan.steps} steps with '
            f'{len(self.plan.faults)} faults, a checkpoint every '
            f'{self.plan.interval} steps.'
        )

    def _run_undisturbed(self) -> tuple[Start, WatchedRun]:
        run = self._new_run('undisturbed', self.plan)
        start = Start(0)
        try:
            run.start(resume=False)
            run.finish(start, None)
            run.say_farewell()
        finally:
            run.close()
        if set(start.codes) != {0} or start.last != self.plan.steps:
            raise SoakError(_end_of(run))
        self._start_seconds = start.seconds_to_train
        self._step_seconds = (
            start.seconds - start.seconds_to_train
        ) / self.plan.steps
        return start, run

    def _run_disturbed(
        self, undisturbed: Start, reference: WatchedRun
    ) -> tuple[Record, tuple[WatchedRun, WatchedRun]]:
        record = Record(
            self.plan.steps,
            self.plan.interval,
            undisturbed,
            broken_images=len(self.broken),
        )
        run = self._new_run('disturbed', self.plan)
        try:
            Disturbance(
                run,
                self.plan,
                reference.steps.losses,
                self._step_seconds,
                record,
                self._is_late,
                self._tell,
            ).run()
            run.say_farewell()
        finally:
            run.close()
        return record, (reference, run)

    def _compare(
        self,
        record: Record,
        undisturbed: Start,
        runs: tuple[WatchedRun, WatchedRun],
    ) -> None:
        reference, run = runs
        for each in runs:
            record.processes_left += sorted(each.outlived)
        files = Checkpoints(run.work_dir)
        record.parts_left = files.parts()
        record.checkpoints_left = files.names()
        name = f'iter_{self.plan.steps}.pth'
        if (run.work_dir / name).is_file():
            checkpoints = [
                read_checkpoint(str(each.work_dir / name)) for each in runs
            ]
            record.differences = list(
                differences(*checkpoints, not_compared=_NOT_COMPARED)
            )
        record.memory = judge_memory(reference.samples, run.samples)
        self.samples = dict(
            undisturbed=thin_out(reference.samples),
            disturbed=thin_out(run.samples),
        )

    def _is_late(self, step: int) -> bool:
        """Whether there is time for another start and the rest alone."""
        if self.settings.plan is not None:
            return False
        start, verdict = self._start_seconds, 8.0
        needed = 2 * start + (self.plan.steps - step) * self._step_seconds
        return self.seconds + needed + verdict > 60 * self.settings.minutes


def _end_of(run: WatchedRun) -> str:
    """What a run that failed said last."""
    log = run.training.log
    lines = '\n'.join(run.training.said().splitlines()[-15:])
    return f'the run without faults does not end well, see {log}:\n{lines}'
