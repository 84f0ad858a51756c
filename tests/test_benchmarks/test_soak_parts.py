"""The parts of a soak, each against what it must find."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch
from mmengine.logging import HistoryBuffer

from benchmarks.soak.checkpoints import Checkpoints, step_of
from benchmarks.soak.comparison import differences, first_difference
from benchmarks.soak.images import write_images
from benchmarks.soak.injection import _limit
from benchmarks.soak.memory import Sample, judge_memory, thin_out
from benchmarks.soak.plan import (
    DAMAGE,
    KINDS,
    STOPS,
    Costs,
    Plan,
    draw_faults,
    fit_plan,
)
from benchmarks.soak.processes import find_leftovers, find_processes
from benchmarks.soak.record import Start
from benchmarks.soak.step_log import StepLog


@pytest.mark.parametrize('count', [2, 9, 120])
def test_faults_are_drawn_over_the_whole_run(count):
    steps, interval = 1200, 30
    faults = draw_faults(5, steps, interval, count, processes=2)
    assert faults == draw_faults(5, steps, interval, count, processes=2)
    assert faults != draw_faults(6, steps, interval, count, processes=2)
    places = [fault.step for fault in faults]
    assert places == sorted(places) and len(places) == count
    # One in each part, none in the last two intervals.
    edges = [2 + 1138 * index / count for index in range(count + 1)]
    for place, begin, end in zip(places, edges, edges[1:], strict=False):
        assert begin - 1 <= place < end
    kinds = Counter(fault.kind for fault in faults)
    assert max(kinds.values()) - min(kinds[kind] for kind in KINDS) <= 1
    for fault in faults:
        assert fault.rank in (0, 1) and 0 <= fault.delay < 1
        if fault.damage is not None:
            assert fault.kind in STOPS and fault.step >= 3 * interval
    if count == 120:
        assert {fault.damage for fault in faults} == {None, *DAMAGE}


@pytest.mark.parametrize('start', [9.0, 35.0])
@pytest.mark.parametrize('step', [0.06, 0.3])
@pytest.mark.parametrize('minutes', [5, 15, 60])
def test_a_plan_fits_its_time(minutes, start, step):
    plan = fit_plan(60 * minutes - 15, Costs(start, step, 131), 0, 1)
    count = len(plan.faults)
    # As the runs go: each start, each step, and half an interval again.
    needed = (count + 2) * start + 2 * plan.steps * step * 1.15
    needed += count * (1 + plan.interval * step)
    if count > 2 and plan.epochs > 1:
        assert 0.6 * 60 * minutes < needed < 60 * minutes
    assert count >= 2 and plan.epochs >= 1
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_steps_are_followed_as_they_are_written(tmp_path):
    path = tmp_path / 'steps'
    log = StepLog(path)
    assert not log.update() and log.first is None and log.step == 0
    with open(path, 'w') as file:
        for text, step in (
            ('20 100\n21 0x1p0\n22 0x', 21),
            ('1p1\n', 22),
            # One is left out, one comes twice.
            ('24 0x1p2\n22 0x1p1\n23 0x1p3\n', 23),
        ):
            file.write(text)
            file.flush()
            assert log.update() and log.step == step
    assert (log.first, log.total) == (20, 100)
    assert log.losses == ['0x1p0', '0x1p1', '0x1p3']
    assert log.faults == ['24 0x1p2', '22 0x1p1']


def test_first_difference():
    undisturbed = list('abcdef')
    assert first_difference(undisturbed, 2, list('cdef')) is None
    assert first_difference(undisturbed, 2, list('cxxf')) == 4
    assert first_difference(undisturbed, 2, list('cdefg')) == 7


@pytest.fixture
def checkpoints(tmp_path):
    for number in (10, 20, 30):
        path = tmp_path / f'iter_{number}.pth'
        path.write_bytes(bytes(range(256)) * 400)
        os.utime(path, (number, number))
    (tmp_path / 'last_checkpoint').write_text('/somewhere/iter_30.pth')
    return Checkpoints(tmp_path)


def test_which_checkpoint_is_next(checkpoints, tmp_path):
    assert checkpoints.whole()[0] == 'iter_30.pth'
    # Renamed, but not named yet.
    (tmp_path / 'iter_40.pth').write_bytes(b'new')
    assert checkpoints.whole()[:2] == ['iter_30.pth', 'iter_40.pth']
    assert checkpoints.damage('truncated', 0.3) == 'iter_30.pth'
    assert (tmp_path / 'iter_30.pth').stat().st_size == int(0.3 * 102400)
    assert checkpoints.whole()[0] == 'iter_40.pth'
    # Until it is written again.
    (tmp_path / 'iter_30.pth').write_bytes(b'whole')
    assert checkpoints.whole()[0] == 'iter_30.pth'
    assert step_of('iter_30.pth') == 30 and step_of(None) == 0


def test_corrupted_and_half_written(checkpoints, tmp_path):
    before = (tmp_path / 'iter_30.pth').read_bytes()
    part = checkpoints.damage('part_file', 0.5)
    assert checkpoints.parts() == [part]
    assert (tmp_path / part).read_bytes() == before[:51200]
    assert checkpoints.whole()[0] == 'iter_30.pth'
    checkpoints.damage('corrupted', 0.5)
    after = (tmp_path / 'iter_30.pth').read_bytes()
    assert len(after) == len(before)
    changed = [i for i in range(len(after)) if after[i] != before[i]]
    assert 3500 < len(changed) <= 4096
    assert changed[-1] - changed[0] < 4096
    # Something is always left to resume from.
    assert checkpoints.damage('truncated', 0) == 'iter_20.pth'
    assert checkpoints.damage('truncated', 0) is None
    assert checkpoints.whole() == ['iter_10.pth']


@pytest.mark.parametrize(
    ('value', 'other'),
    [
        (torch.zeros(3), torch.zeros(3).double()),
        (torch.zeros(3), torch.tensor([0, 0, 1e-45])),
        ([1, 2], [1, 2, 3]),
        ({'a': 1}, {'b': 1}),
        ({'a': 1}, [1]),
        (1, 1.0),
        (torch.zeros(1), None),
        (HistoryBuffer([1.0], [1]), HistoryBuffer([2.0], [1])),
    ],
)
def test_differences_are_found(value, other):
    state = dict(x=dict(y=[value]), lr_time=1)
    assert list(differences(state, dict(x=dict(y=[value]), lr_time=2))) == []
    (found,) = differences(state, dict(x=dict(y=[other]), lr_time=1))
    assert found.startswith('/x/y/0')
    assert list(
        differences(dict(ids=1), dict(ids=2), not_compared=['ids'])
    ) == []  # fmt: skip


def samples(totals, start=0):
    return [
        Sample(0.5 * i, start, 10 * i + 1, total, 100.0)
        for i, total in enumerate(totals)
    ]


def test_memory_that_grows_is_found():
    flat = samples([200 + 300 * min(1, i / 20) for i in range(100)])
    judged = judge_memory(flat, samples([510.0] * 9, start=3))
    assert judged['growth_mib'] == 0
    assert judged['undisturbed_median_mib'] == 600
    assert judged['medians_of_starts_mib'] == {'3': 610.0}
    # A validation is no slope.
    step = samples([500.0] * 60 + [560.0] * 3 + [500.0] * 37)
    assert judge_memory(step, [])['growth_mib'] == 0
    leak = samples([500 + 0.5 * i for i in range(100)])
    judged = judge_memory(leak, [])
    assert judged['steps_judged'] == 660
    assert judged['growth_mib'] == pytest.approx(33)
    assert judged['growth_mib'] > judged['growth_bound_mib']
    assert judge_memory(flat[:5], [])['growth_mib'] is None
    assert 50 <= len(thin_out(flat * 10)) <= 100


LOG = """
11/24 12:00:29 - mmengine - WARNING - Resuming from /w d/iter_20.pth, the newest checkpoint that can be read: /w d/iter_40.pth is damaged or no checkpoint of torch: bad
Loads checkpoint by local backend from path: /w d/iter_20.pth
11/24 12:00:29 - mmengine - INFO - Load checkpoint from /w d/iter_20.pth
11/24 12:00:29 - mmengine - INFO - resumed epoch: 0, iter: 20
11/24 12:00:34 - mmengine - INFO - Saving checkpoint at 40 iterations
11/24 12:00:34 - mmengine - ERROR - The checkpoint /w d/iter_40.pth could not be written: [Errno 27]
11/24 12:00:44 - mmengine - WARNING - skip_broken: 7 broken files, of at most 12, are replaced
11/24 12:00:54 - mmengine - WARNING - skip_broken: 9 broken files, of at most 12, are replaced
"""  # noqa: E501


def test_what_a_log_says():
    start = Start(1, expected='iter_20.pth', damaged='iter_40.pth')
    start.read_log(LOG)
    assert (start.told, start.told_step) == ('iter_20.pth', 20)
    assert start.told_damaged
    assert start.failed_saves == [40] and start.broken_listed == 9
    start = Start(1)
    start.read_log('Auto resumed from the latest checkpoint None.')
    assert (start.told, start.told_step) == (None, 0)
    start = Start(1, expected='iter_20.pth', damaged='iter_60.pth')
    start.read_log('nothing of interest')
    assert start.told_step is None and not start.told_damaged


def test_processes_of_a_session():
    code = 'import os, time; os.fork(); time.sleep(60)'
    main = subprocess.Popen(
        [sys.executable, '-c', code], start_new_session=True
    )
    try:
        until = time.monotonic() + 30
        while len(found := find_processes([main.pid])) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert {p.session for p in found} == {main.pid}
        assert all(p.rss > 1 for p in found)
        main.kill()
        main.wait()
        (orphan,) = find_leftovers([main.pid])
        assert b'os.fork' in orphan.command
    finally:
        os.killpg(main.pid, signal.SIGKILL)


def test_no_room_for_a_file(tmp_path):
    code = (
        'import sys\n'
        'for _ in sys.stdin:\n'
        '    try:\n'
        f'        open({str(tmp_path / "file")!r}, "wb").write(bytes(20000))\n'
        '        print("written", flush=True)\n'
        '    except OSError as error:\n'
        '        print(error.strerror, flush=True)\n'
    )
    with subprocess.Popen(
        [sys.executable, '-c', code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def write():
            process.stdin.write('\n')
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert write() == 'written'
        with _limit(process.pid, 10000):
            assert write() == 'File too large'
            assert (tmp_path / 'file').stat().st_size <= 10000
        assert write() == 'written'
        process.stdin.close()


def test_images_of_which_some_are_broken(tmp_path, monkeypatch):
    import mmcv
    import numpy as np

    images = np.arange(40 * 784, dtype=np.uint8).reshape(40, 28, 28)
    data = images, np.arange(40) % 10, np.arange(40)
    monkeypatch.setattr('benchmarks.soak.images.read_archive', lambda *_: data)
    broken = write_images(tmp_path / 'a', seed=1)
    assert broken == write_images(tmp_path / 'b', seed=1)
    assert broken != write_images(tmp_path / 'c', seed=2)
    assert len(set(broken)) == 12
    for index in range(40):
        name = f'{index % 10}/{index:05d}.png'
        content = (tmp_path / 'a' / name).read_bytes()
        try:
            image = mmcv.imfrombytes(content, flag='unchanged')
        except Exception:  # as backends raise what they like
            image = None
        if name in broken:
            assert image is None
        else:
            assert np.array_equal(image, images[index])
