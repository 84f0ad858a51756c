"""What a soak has shown, point by point."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mmunimoco.engine.preemption import REQUEUE

from .checkpoints import step_of
from .plan import KEPT_CHECKPOINTS, STOPS
from .record import Injected, Record, Start

_KILLED = -9
_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """A point of the verdict.

    Args:
        name (str): What should be.
        passed (bool): Whether it is.
        detail (str): Numbers, or what is wrong.
    """

    name: str
    passed: bool
    detail: str


def judge(record: Record) -> list[Check]:
    """Judge a soak.

    Args:
        record (Record): What happened.

    Returns:
        list[Check]: All points, whether they hold or not.
    """
    return [
        Check(name, not faults, _shorten(faults) or praise(record))
        for name, (find, praise) in _CHECKS.items()
        for faults in [list(find(record))]
    ]


def _shorten(faults: list[str]) -> str:
    shown = '; '.join(faults[:_SHOWN])
    more = len(faults) - _SHOWN
    return f'{shown}; and {more} more' if more > 0 else shown


def _not_finished(record: Record) -> Iterator[str]:
    for name, start in (
        ('the undisturbed run', record.undisturbed),
        ('the disturbed run', record.starts[-1] if record.starts else None),
    ):
        if start is None or set(start.codes) != {0}:
            codes = None if start is None else start.codes
            yield f'{name} ended with exit status {codes}'
        elif start.last != record.steps:
            yield f'{name} ended at step {start.last} of {record.steps}'


def _not_as_injected(record: Record) -> Iterator[str]:
    if not record.faults:
        yield 'nothing was injected'
    for fault in record.faults:
        if not fault.had_effect:
            yield f'{fault.kind} at step {fault.step} could not be done'
    for start in record.starts[:-1]:
        stops = [
            fault
            for fault in record.faults
            if fault.start == start.number and fault.kind in STOPS
        ]
        if start.hung:
            yield f'start {start.number} did not end by itself'
        elif not stops:
            yield f'start {start.number} ended with {start.codes} unasked'
        elif not _is_as_expected(stops[-1], start):
            yield (
                f'after {stops[-1].kind} start {start.number} ended with '
                f'{start.codes}'
            )


def _is_as_expected(fault: Injected, start: Start) -> bool:
    """Whether processes ended as this fault should have them end."""
    codes = start.codes
    if fault.kind == 'sigterm':
        return set(codes) == {REQUEUE}
    if not codes or 0 in codes or None in codes:
        return False
    if fault.kind == 'kill_group':
        return set(codes) == {_KILLED}
    # A killed worker's process ends with an error of its own.
    return (_KILLED in codes) == (fault.kind != 'kill_worker')


def _not_told(record: Record) -> Iterator[str]:
    for start in record.starts[1:]:
        expected = step_of(start.expected)
        name = f'start {start.number}'
        if start.told_step is None:
            yield f'{name} did not say what it goes on from'
        elif (start.told, start.told_step) != (start.expected, expected):
            yield (
                f'{name} goes on from {start.told} at step {start.told_step}, '
                f'not from {start.expected}'
            )
        elif start.first != expected:
            yield f'{name} goes on at step {start.first}, not {expected}'
        elif start.damaged and not start.told_damaged:
            yield f'{name} does not say that {start.damaged} is damaged'


def _too_many_lost(record: Record) -> Iterator[str]:
    stops = [fault for fault in record.faults if fault.kind in STOPS]
    for fault in stops:
        if fault.lost is None or fault.bound is None:
            yield f'unknown after {fault.kind} at step {fault.step}'
        elif not 0 <= fault.lost <= fault.bound:
            yield (
                f'{fault.kind} at step {fault.step} cost {fault.lost} steps '
                f'of at most {fault.bound}'
            )


def _other_steps(record: Record) -> Iterator[str]:
    for start in record.starts:
        if start.first_other_loss is not None:
            yield (
                f'start {start.number}: another loss at step '
                f'{start.first_other_loss}'
            )
        for line in start.odd_steps:
            yield f'start {start.number}: out of order: {line}'


def _other_state(record: Record) -> Iterator[str]:
    if record.differences is None:
        yield 'there are not both last checkpoints'
    else:
        yield from record.differences


def _not_listed(record: Record) -> Iterator[str]:
    """Each epoch leaves out a few images, so not all must have been met."""
    listed = record.undisturbed.broken_listed
    again = record.starts[-1].broken_listed if record.starts else 0
    if not 0 < listed <= record.broken_images:
        yield f'{listed} of {record.broken_images} are listed, undisturbed'
    if again != listed:
        yield f'{again} are listed, {listed} undisturbed'


def _not_flat(record: Record) -> Iterator[str]:
    memory = record.memory
    if memory.get('growth_mib') is None:
        yield 'too few samples'
        return
    if memory['growth_mib'] > memory['growth_bound_mib']:
        yield f'{memory["growth_mib"]} MiB more at the end, undisturbed'
    for start, level in memory['medians_of_starts_mib'].items():
        if level > memory['level_bound_mib']:
            yield f'start {start} needs {level} MiB'


def _left(record: Record) -> Iterator[str]:
    for process in record.processes_left:
        yield f'process {process}'
    for name in record.parts_left:
        yield f'half a file {name}'
    if len(record.checkpoints_left) > KEPT_CHECKPOINTS:
        yield f'checkpoints {", ".join(record.checkpoints_left)}'


def _lost_in_all(record: Record) -> str:
    lost = [fault.lost for fault in record.faults if fault.lost is not None]
    return (
        f'{sum(lost)} steps in all, {max(lost, default=0)} at most, with '
        f'checkpoints every {record.interval}'
    )


def _compared_steps(record: Record) -> str:
    done = [start.last - start.first for start in record.starts if start.last]
    return f'{sum(done)} steps, all losses the same bit by bit'


def _growth(record: Record) -> str:
    memory = record.memory
    return (
        f'{memory["growth_mib"]:+.1f} MiB in {memory["steps_judged"]} steps, '
        f'bound {memory["growth_bound_mib"]:.0f}; '
        f'{memory["undisturbed_median_mib"]:.0f} MiB in all'
    )


_Finder = Callable[[Record], Iterator[str]]
_CHECKS: dict[str, tuple[_Finder, Callable[[Record], str]]] = {
    'both runs end': (_not_finished, lambda r: f'after {r.steps} steps'),
    'faults end what they should end': (
        _not_as_injected,
        lambda r: f'{len(r.faults)} faults, {len(r.starts) - 1} restarts',
    ),
    'every restart says what it goes on from': (
        _not_told,
        lambda r: f'{len(r.starts) - 1} restarts',
    ),
    'at most an interval is lost': (_too_many_lost, _lost_in_all),
    'every step is the undisturbed one': (_other_steps, _compared_steps),
    'the last checkpoint is the undisturbed one': (
        _other_state,
        lambda r: 'bit by bit',
    ),
    'broken images are replaced and listed': (
        _not_listed,
        lambda r: (
            f'{r.undisturbed.broken_listed} of {r.broken_images}, in both runs'
        ),
    ),
    'memory is flat': (_not_flat, _growth),
    'nothing is left behind': (
        _left,
        lambda r: f'no process, no part; {len(r.checkpoints_left)} files',
    ),
}
