"""What happened in a soak."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

_LOADED = re.compile(r'Load checkpoint from .*?(iter_\d+\.pth)$', re.M)
_RESUMED = re.compile(r'resumed epoch: \d+, iter: (\d+)')
_NOTHING = 'Auto resumed from the latest checkpoint None'
_FELL_BACK = re.compile(
    r'Resuming from .*?(iter_\d+\.pth), the newest checkpoint that can be '
    r'read: (.*)'
)
_BROKEN = re.compile(r'skip_broken: (\d+) broken files')
_FAILED = re.compile(r'iter_(\d+)\.pth could not be written')


@dataclass
class Start:
    """A start of the run.

    Args:
        number (int): Counted from 0.
        expected (str | None): The checkpoint that it should go on from; None
            if there is none to expect.
        damaged (str | None): The checkpoint that it has to pass over.

    Attributes:
        told (str | None): The checkpoint that it said it goes on from.
        told_step (int | None): The step that it said; 0 for "from none", None
            if it said nothing.
        told_damaged (bool): Whether it said why it passes the other one over.
        first (int | None): Steps that were done before its first one.
        last (int | None): Steps that were done when it ended.
        first_other_loss (int | None): First step whose loss is another one
            than in the undisturbed run.
        odd_steps (list[str]): Steps out of their order.
        codes (list[int | None]): Exit status of each process.
        hung (bool): Whether nothing happened for so long that it was killed.
        failed_saves (list[int]): Steps whose checkpoint could not be written.
        broken_listed (int): Broken images that it has listed in the end.
        seconds_to_train (float | None): Until its first step could begin.
        seconds (float): In all.
    """

    number: int
    expected: str | None = None
    damaged: str | None = None
    told: str | None = None
    told_step: int | None = None
    told_damaged: bool = False
    first: int | None = None
    last: int | None = None
    first_other_loss: int | None = None
    odd_steps: list[str] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    hung: bool = False
    failed_saves: list[int] = field(default_factory=list)
    broken_listed: int = 0
    seconds_to_train: float | None = None
    seconds: float = 0.0

    def read_log(self, text: str) -> None:
        """Take from the log what it says of checkpoints.

        Args:
            text (str): What the first process printed.
        """
        loaded, resumed = _LOADED.search(text), _RESUMED.search(text)
        if loaded and resumed:
            self.told, self.told_step = loaded[1], int(resumed[1])
        elif _NOTHING in text:
            self.told_step = 0
        fallback = _FELL_BACK.search(text)
        self.told_damaged = bool(
            self.damaged
            and fallback
            and fallback[1] == self.expected
            and self.damaged in fallback[2]
        )
        self.failed_saves = failed_saves(text)
        self.broken_listed = int((_BROKEN.findall(text) or [0])[-1])


@dataclass
class Injected:
    """A fault that was injected.

    Args:
        kind (str): One of ``KINDS``.
        damage (str | None): One of ``DAMAGE``, if that could be done.
        start (int): Number of the start that it hit.
        planned_step (int): When it was to come.
        step (int): Steps done when it came.
        seconds (float): Since the soak began.
        had_effect (bool): Whether it could be done: there was a worker to
            kill, a save that failed.

    Attributes:
        damaged_file (str | None): What was damaged.
        lost (int | None): Steps that were done again for it.
        bound (int | None): How many these may be.
    """

    kind: str
    damage: str | None
    start: int
    planned_step: int
    step: int
    seconds: float
    had_effect: bool
    damaged_file: str | None = None
    lost: int | None = None
    bound: int | None = None


@dataclass
class Record:
    """All that the verdict is about.

    Args:
        steps (int): Steps of a whole run.
        interval (int): Steps between two checkpoints.
        undisturbed (Start): The run that nothing happened to.
        broken_images (int): Of the training images.
        starts (list[Start]): Of the other one.
        faults (list[Injected]): Its faults.
        left_out (int): Faults of the plan that were not injected because it
            was late.
        differences (list[str] | None): Between both last checkpoints; None if
            there are not both.
        memory (dict): From ``judge_memory``.
        processes_left (list[str]): That outlived their run.
        parts_left (list[str]): Files that were not written to their end.
        checkpoints_left (list[str]): Of the disturbed run.
    """

    steps: int
    interval: int
    undisturbed: Start
    broken_images: int = 0
    starts: list[Start] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    left_out: int = 0
    differences: list[str] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    processes_left: list[str] = field(default_factory=list)
    parts_left: list[str] = field(default_factory=list)
    checkpoints_left: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As the results hold it."""
        return asdict(self)


def failed_saves(text: str) -> list[int]:
    """Steps whose checkpoint could not be written, as a log says."""
    return [int(step) for step in _FAILED.findall(text)]
