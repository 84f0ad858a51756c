"""A run to which things happen, until it comes to its end."""

from collections.abc import Callable
from functools import partial

from .checkpoints import Checkpoints
from .injection import inject
from .plan import FEWEST_FAULTS, STOPS, WORDS, Fault, Plan
from .record import Injected, Record, Start
from .run import HangsError, WatchedRun


class Disturbance:
    """Start a run, disturb it, and start it again.

    Args:
        run (WatchedRun): The run.
        plan (Plan): With the faults.
        losses (list[str]): Of the undisturbed run.
        step_seconds (float): What a step takes.
        record (Record): Its starts and faults are filled in.
        is_late (Callable[[int], bool]): Whether there is time for the rest
            alone, once so many steps are done.
        tell (Callable[[str], None]): Gets a line for the user.
    """

    def __init__(
        self,
        run: WatchedRun,
        plan: Plan,
        losses: list[str],
        step_seconds: float,
        record: Record,
        is_late: Callable[[int], bool],
        tell: Callable[[str], None],
    ) -> None:
        self.watched, self.plan = run, plan
        self.losses, self.step_seconds = losses, step_seconds
        self.record = record
        self.is_late, self.tell = is_late, tell
        self._waiting = list(plan.faults)
        self._files = Checkpoints(run.work_dir)

    def run(self) -> None:
        """Do it. What is unexpected ends it, and is in the record."""
        stopped, damaged = None, None
        while True:
            start = self._start(damaged)
            fault = self._disturb(start)
            self.watched.finish(start, self.losses)
            if stopped is not None:
                self._count_lost(stopped, *self.record.starts[-2:])
            if fault is None or start.hung:
                return
            stopped = self.record.faults[-1]
            damaged = self._damage(fault, stopped)
            self._leave_out_if_late()

    def _start(self, damaged: str | None) -> Start:
        whole = self._files.whole()
        start = Start(
            number=len(self.record.starts),
            expected=whole[0] if whole else None,
            damaged=damaged,
        )
        self.record.starts.append(start)
        self.watched.start(resume=start.number > 0)
        return start

    def _disturb(self, start: Start) -> Fault | None:
        """Inject faults until one ends this start; None if none does."""
        while self._waiting:
            fault = self._waiting[0]
            try:
                if not self.watched.wait(partial(self._is_due, fault)):
                    return None
                had_effect = inject(fault, self.watched, self.step_seconds)
            except HangsError:
                return None
            del self._waiting[0]
            self._note(fault, start, had_effect)
            if fault.kind in STOPS and had_effect:
                return fault
        return None

    def _is_due(self, fault: Fault) -> bool:
        return self.watched.step >= fault.step

    def _note(self, fault: Fault, start: Start, had_effect: bool) -> None:
        self.record.faults.append(
            Injected(
                kind=fault.kind,
                damage=None,
                start=start.number,
                planned_step=fault.step,
                step=self.watched.step,
                seconds=round(self.watched.clock(), 1),
                had_effect=had_effect,
            )
        )
        note = '' if had_effect else ' (could not be done)'
        self.tell(f'step {self.watched.step}: {WORDS[fault.kind]}{note}')

    def _damage(self, fault: Fault, injected: Injected) -> str | None:
        """Damage a file while the run is down; the one to be passed over."""
        if fault.damage is None:
            return None
        name = self._files.damage(fault.damage, fault.place)
        if name is None:
            return None
        injected.damage, injected.damaged_file = fault.damage, name
        self.tell(f'while it is down: {WORDS[fault.damage]} ({name})')
        return None if fault.damage == 'part_file' else name

    def _count_lost(self, fault: Injected, ended: Start, start: Start) -> None:
        """Count what was done again, and what that may be at most."""
        if ended.last is None or start.first is None:
            return
        fault.lost = ended.last - start.first
        failed = {
            step
            for each in self.record.starts
            for step in each.failed_saves
            if start.first < step <= ended.last
        }
        # SIGTERM saves.
        intervals = (fault.kind != 'sigterm') + len(failed)
        intervals += fault.damage in ('truncated', 'corrupted')
        fault.bound = intervals * self.plan.interval

    def _leave_out_if_late(self) -> None:
        least = FEWEST_FAULTS - len(self.record.faults)
        if self._waiting and self.is_late(self.watched.step):
            self.record.left_out += len(self._waiting[max(0, least) :])
            del self._waiting[max(0, least) :]
