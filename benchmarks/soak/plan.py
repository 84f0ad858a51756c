"""What is to happen in a soak: how many steps, which faults, and when."""

import random
from dataclasses import asdict, dataclass
from typing import Any

# What ends a start of the run ...
STOPS = ('kill', 'kill_group', 'kill_worker', 'kill_saving', 'sigterm')
# ... and what it outlives.
KINDS = (*STOPS, 'full_disk')
# What happens to the files before the run is started again.
DAMAGE = ('truncated', 'corrupted', 'part_file')
# What they are to the user.
WORDS = dict(
    kill='SIGKILL of the main process',
    kill_group='SIGKILL of all processes',
    kill_worker='SIGKILL of a data loader worker',
    kill_saving='SIGKILL while a checkpoint is written',
    sigterm='SIGTERM',
    full_disk='no room for a checkpoint',
    truncated='latest checkpoint truncated',
    corrupted='latest checkpoint corrupted',
    part_file='half of a file left',
)
KEPT_CHECKPOINTS = 3

# Seconds between two checkpoints.
_SAVE_EVERY = 2.5
# Share of the time that goes into restarts.
_RESTARTING = 0.45
# Validations, and what the machine does besides.
_OVERHEAD = 1.25
# Between the end of a start and the next: a worker outlives its killed main
# process for a while, a traceback is written.
_STOPPING = 2.0
# Comparing, writing the results.
_VERDICT = 8.0
# However short the time is.
FEWEST_FAULTS = 2


@dataclass(frozen=True)
class Fault:
    """A fault of the plan.

    Args:
        step (int): It comes once so many steps are done.
        kind (str): One of ``KINDS``.
        delay (float): How long after that step, in steps, 0 ... 1.
        rank (int): Which of several processes is hit.
        damage (str | None): One of ``DAMAGE``, while the run is down.
        place (float): Where in the file the damage is, 0 ... 1.
    """

    step: int
    kind: str
    delay: float
    rank: int
    damage: str | None
    place: float


@dataclass(frozen=True)
class Costs:
    """What this machine takes, in seconds.

    Args:
        start (float): From starting a process to its first step.
        step (float): A training step, its share of a checkpoint included.
        steps_per_epoch (int): Steps of an epoch.
    """

    start: float
    step: float
    steps_per_epoch: int


@dataclass(frozen=True)
class Plan:
    """All that two soaks must have in common to be the same.

    Args:
        seed (int): Of the training and of the faults.
        processes (int): Processes that train.
        epochs (int): Epochs of the undisturbed run and of the other one.
        steps_per_epoch (int): Steps of an epoch.
        interval (int): Steps between two checkpoints.
        faults (tuple[Fault, ...]): In the order of their steps.
    """

    seed: int
    processes: int
    epochs: int
    steps_per_epoch: int
    interval: int
    faults: tuple[Fault, ...]

    @property
    def steps(self) -> int:
        """Steps of a whole run."""
        return self.epochs * self.steps_per_epoch

    def as_dict(self) -> dict[str, Any]:
        """As the results hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plan: dict[str, Any]) -> 'Plan':
        """The plan of an earlier soak.

        Args:
            plan (dict): From :meth:`as_dict`, or read from its JSON.
        """
        faults = tuple(Fault(**fault) for fault in plan['faults'])
        return cls(**{**plan, 'faults': faults})


def fit_plan(seconds: float, costs: Costs, seed: int, processes: int) -> Plan:
    """Make a plan that takes about so long.

    However short the time, there are two faults and an epoch.

    Args:
        seconds (float): For the undisturbed run, the other, and the verdict.
        costs (Costs): What this machine takes.
        seed (int): Of the training and of the faults.
        processes (int): Processes that train.
    """
    interval = round(_SAVE_EVERY / costs.step)
    interval = max(10, min(interval, costs.steps_per_epoch // 5))
    left = max(0.0, seconds - 2 * costs.start - _VERDICT)
    # The steps since the last checkpoint are done again: half of an interval,
    # or, if that is damaged, one more.
    fault = costs.start + _STOPPING + interval * costs.step
    count = max(FEWEST_FAULTS, int(_RESTARTING * left / fault))
    training = left - count * fault
    epoch = costs.steps_per_epoch * costs.step * _OVERHEAD
    epochs = max(1, int(training / (2 * epoch)))
    steps = epochs * costs.steps_per_epoch
    return Plan(
        seed=seed,
        processes=processes,
        epochs=epochs,
        steps_per_epoch=costs.steps_per_epoch,
        interval=interval,
        faults=draw_faults(seed, steps, interval, count, processes),
    )


def guess_seconds(plan: Plan) -> float:
    """What a plan takes on two cores that have nothing else to do."""
    return 12 * (len(plan.faults) + 2) + 0.16 * plan.steps


def draw_faults(
    seed: int, steps: int, interval: int, count: int, processes: int = 1
) -> tuple[Fault, ...]:
    """Draw faults: one in each of as many parts of the run, anywhere in it.

    All kinds come about as often. The last two intervals have none, so that
    the run can always get to its end.

    Args:
        seed (int): The same one draws the same faults.
        steps (int): Steps of the run.
        interval (int): Steps between two checkpoints.
        count (int): How many.
        processes (int): Processes that train. Defaults to 1.

    Returns:
        tuple[Fault, ...]: In the order of their steps.
    """
    source = random.Random(seed)
    kinds = _deck(source, KINDS, count)
    damages = _deck(source, (*DAMAGE, None), count)
    first, last = 2, max(3, steps - 2 * interval)
    faults = []
    for index, (kind, damage) in enumerate(zip(kinds, damages, strict=True)):
        part = source.random()
        step = first + int((last - first) * (index + part) / count)
        # There must be an older checkpoint; and what goes on has no break.
        if kind not in STOPS or step < 3 * interval:
            damage = None
        faults.append(
            Fault(
                step=step,
                kind=kind,
                delay=source.random(),
                rank=source.randrange(processes),
                damage=damage,
                place=source.random(),
            )
        )
    return tuple(faults)


def _deck(source: random.Random, cards: tuple, count: int) -> list:
    """Shuffled cards, and again, until there are enough."""
    drawn = []
    while len(drawn) < count:
        drawn += source.sample(cards, len(cards))
    return drawn[:count]
