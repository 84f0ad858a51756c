"""What a soak has shown, point by point."""

import os
import re
from typing import Any

import numpy as np

KEPT_CHECKPOINTS = 3
# Faults that end the run, and one that it survives.
STOPS = ('kill', 'kill_group', 'kill_worker', 'kill_saving', 'sigterm')
KINDS = (*STOPS, 'full_disk')
# Growth of the undisturbed run that allocators explain, and how far a start
# may exceed the undisturbed run.
GROWTH_MIB, LEVEL = 32.0, 1.1

LOADED = re.compile(r'Load checkpoint from .*?(iter_\d+\.pth)$', re.M)
RESUMED = re.compile(r'resumed epoch: \d+, iter: (\d+)')
NOTHING = 'Auto resumed from the latest checkpoint None'
FALLBACK = re.compile(r'Resuming from .*?(iter_\d+\.pth), the newest .*')
FAILED_SAVE = re.compile(r'iter_(\d+)\.pth could not be written')
SKIPPED = re.compile(r'(\d+) broken files, of at most')


def failed_saves(log: str) -> list[int]:
    """Return the steps whose checkpoint could not be written."""
    return [int(step) for step in FAILED_SAVE.findall(log)]


def read_log(log: str) -> dict[str, Any]:
    """Return what a log says of checkpoints and broken images."""
    loaded, resumed = LOADED.search(log), RESUMED.search(log)
    fallback = FALLBACK.search(log)
    name, step = None, 0 if NOTHING in log else None
    if loaded and resumed:
        name, step = loaded[1], int(resumed[1])
    return dict(
        said=name,
        said_step=step,
        said_damaged=fallback[0] if fallback else '',
        failed_saves=failed_saves(log),
        broken_listed=int((SKIPPED.findall(log) or [0])[-1]),
    )


def judge(record: dict[str, Any]) -> dict[str, list]:
    """Judge a soak.

    Args:
        record (dict): What happened, see ``soak.py``.

    Returns:
        dict[str, list[str]]: What should hold -> what contradicts it.
    """
    checks = {
        'both runs end': _not_finished,
        'faults end what they should end': _not_as_injected,
        'every restart says what it resumes from': _not_said,
        'at most an interval is lost': _too_many_lost,
        'every step is the undisturbed one': _other_steps,
        'the last checkpoint is the undisturbed one': (
            lambda record: record['differences']
        ),
        'broken images are replaced and listed': _not_listed,
        'memory is flat': _not_flat,
        'nothing is left behind': _left_behind,
    }
    if record['memory']['growth_mib'] is None:
        del checks['memory is flat']  # too short to judge
    return {name: list(find(record)) for name, find in checks.items()}


def _not_finished(record):
    steps = record['undisturbed']['last']
    last = record['starts'][-1]
    if set(last['codes']) != {0} or last['last'] != steps:
        yield (
            f'the disturbed run ended at step {last["last"]} of {steps} with '
            f'status {last["codes"]}'
        )


def _not_as_injected(record):
    if not record['faults']:
        yield 'no fault was injected'
    for fault in record['faults']:
        if not fault['injected']:
            yield f'{fault["kind"]} at step {fault["at"]} was not possible'
    for start in record['starts'][:-1]:
        stops = [
            fault['kind']
            for fault in record['faults']
            if fault['start'] == start['number'] and fault['kind'] in STOPS
        ]
        codes, name = start['codes'], f'start {start["number"]}'
        if start['hung']:
            yield f'{name} hung'
        elif not stops:
            yield f'{name} ended with {codes} without a fault'
        elif not _expected(stops[-1], codes):
            yield f'{name} ended with {codes} after {stops[-1]}'


def _expected(kind: str, codes: list[int]) -> bool:
    """Whether these exit statuses should follow a fault; -9 is SIGKILL."""
    if kind == 'sigterm':
        return set(codes) == {os.EX_TEMPFAIL}
    if kind == 'kill_group':
        return set(codes) == {-9}
    # A killed worker's process ends with an error of its own.
    return 0 not in codes and (-9 in codes) == (kind != 'kill_worker')


def _not_said(record):
    for start in record['starts'][1:]:
        name, expected = f'start {start["number"]}', start['expected']
        step = int(re.sub(r'\D', '', expected)) if expected else 0
        if start['said_step'] is None:
            yield f'{name} does not say what it resumes from'
        elif (start['said'], start['said_step']) != (expected, step):
            yield (
                f'{name} resumes from {start["said"]}, step '
                f'{start["said_step"]}, not from {expected}'
            )
        elif start['first'] != step:
            yield f'{name} trains from step {start["first"]}, not {step}'
        elif (
            start['damaged'] and start['damaged'] not in start['said_damaged']
        ):
            yield f'{name} does not say that {start["damaged"]} is damaged'


def _too_many_lost(record):
    for fault in record['faults']:
        if fault['kind'] in STOPS and fault['injected']:
            lost, bound = fault['lost'], fault['bound']
            if lost is None or not 0 <= lost <= bound:
                yield (
                    f'{fault["kind"]} at step {fault["at"]} cost {lost} steps '
                    f'of at most {bound}'
                )


def _other_steps(record):
    for start in record['starts']:
        if start['other_loss'] is not None:
            yield f'start {start["number"]} differs at {start["other_loss"]}'
        for line in start['odd_lines']:
            yield f'start {start["number"]}: out of order: {line}'


def _not_listed(record):
    """Every epoch drops a few samples, so not all need to be found."""
    listed = record['undisturbed']['broken_listed']
    again = record['starts'][-1]['broken_listed']
    if not 0 < listed <= record['broken_images'] or again != listed:
        yield (
            f'{listed} undisturbed, {again} disturbed, of '
            f'{record["broken_images"]}'
        )


def _not_flat(record):
    memory = record['memory']
    if memory['growth_mib'] > GROWTH_MIB:
        yield f'undisturbed it grows by {memory["growth_mib"]} MiB'
    for start, level in memory['start_medians_mib'].items():
        if level > LEVEL * memory['median_mib']:
            yield f'start {start} needs {level} MiB'


def _left_behind(record):
    yield from record['processes_left'] + record['parts_left']
    if len(record['checkpoints_left']) > KEPT_CHECKPOINTS:
        yield f'checkpoints {", ".join(record["checkpoints_left"])}'


def describe_memory(plain: list[tuple], disturbed: list[tuple]) -> dict:
    """Summarise samples of resident memory, (start, step, MiB) each.

    The undisturbed run grows by the median of its last third less that of the
    third before; in the first it still allocates. Validations, which use more
    for a moment, do not move a median. None if it trains for less than 30 s;
    of the starts those count that train for 10 s.
    """
    values = [mib for _, step, mib in plain if step]
    third = len(values) // 3
    level = growth = None
    if len(values) >= 60:
        level = round(float(np.median(values[third:])), 1)
        before, last = values[third:-third], values[-third:]
        growth = round(float(np.median(last) - np.median(before)), 2)
    starts = {}
    for start, step, mib in disturbed:
        if step:
            starts.setdefault(str(start), []).append(mib)
    return dict(
        median_mib=level,
        growth_mib=growth,
        start_medians_mib={
            start: round(float(np.median(values)), 1)
            for start, values in starts.items()
            if len(values) >= 20
        },
    )
