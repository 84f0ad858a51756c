"""Soaks of a stand-in for tools/train.py that starts in no time."""

import json
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.soak import run as run_module
from benchmarks.soak import soak as soak_module
from benchmarks.soak.plan import KINDS, Fault, Plan
from benchmarks.soak.processes import find_processes
from benchmarks.soak.report import build_results, count_kinds, fault_rows
from benchmarks.soak.soak import Soak, SoakError, SoakSettings
from benchmarks.soak.verdict import judge
from mmunimoco.utils.progress import ProgressDisplay

FAKE = Path(__file__).parents[1] / 'fake_train.py'


@pytest.fixture
def soak(tmp_path, monkeypatch):
    """Make a soak of the stand-in, with a fault of its own."""
    (tmp_path / 'root/tools').mkdir(parents=True)
    shutil.copy(FAKE, tmp_path / 'root/tools/train.py')
    monkeypatch.setattr(soak_module, 'write_images', lambda *_: ['a', 'b'])
    monkeypatch.setattr(
        soak_module,
        'read_checkpoint',
        lambda path: json.loads(Path(path).read_text()),
    )
    monkeypatch.setattr(run_module, 'SAMPLE_EVERY', 0.02)
    monkeypatch.setattr(run_module, 'FAREWELL', 1.0)

    def make(plan=None, fault='', seed=0):
        monkeypatch.setenv('FAULT', fault)
        display = ProgressDisplay(Console(quiet=True))
        settings = SoakSettings(
            root=tmp_path / 'root',
            folder=tmp_path / 'soak',
            minutes=0.1,  # without a plan
            seed=seed,
            processes=1,
            plan=plan,
        )
        return Soak(settings, display)

    return make


def make_plan(*faults, epochs=1):
    planned = tuple(
        Fault(step, kind, 0.5, 0, damage, 0.4) for step, kind, damage in faults
    )
    return Plan(0, 1, epochs, 60, 10, planned)


def failed(record):
    return [check.name for check in judge(record) if not check.passed]


def test_every_fault_is_outlived(soak):
    plan = make_plan(
        (25, 'kill', None),
        (45, 'kill_worker', 'truncated'),
        (66, 'full_disk', None),
        (83, 'kill_saving', 'part_file'),
        (104, 'sigterm', 'corrupted'),
        (131, 'kill_group', None),
        epochs=3,
    )
    soak = soak(plan)
    record = soak.run()
    assert failed(record) == []
    assert [fault.kind for fault in record.faults] == [
        fault.kind for fault in plan.faults
    ]
    kinds = count_kinds(record)
    assert all(kinds[kind] == 1 for kind in KINDS)
    assert kinds['truncated'] == kinds['corrupted'] == kinds['part_file'] == 1
    lost = [fault.lost for fault in record.faults]
    assert 0 <= lost[0] <= 10  # to the last checkpoint
    assert 10 <= lost[1] <= 20  # or the one before
    assert lost[2] is None
    assert 0 < lost[4] <= 10  # SIGTERM saves, and that was damaged
    assert (
        record.starts[2].damaged == f'iter_{record.starts[2].first + 10}.pth'
    )
    assert len(fault_rows(record)) == 6
    results = json.loads(
        json.dumps(build_results(soak, record, judge(record)))
    )
    assert results['passed'] and results['restarts'] == 5
    assert Plan.from_dict(results['plan']) == plan


def test_measures_and_plans_by_itself(soak):
    soak = soak(seed=3)
    record = soak.run()
    assert soak.costs.steps_per_epoch == 60
    assert soak.plan.seed == 3 and len(record.faults) >= 2
    assert failed(record) == []


@pytest.mark.parametrize(
    ('fault', 'found'),
    [
        ('state', 'every step is the undisturbed one'),
        ('state', 'the last checkpoint is the undisturbed one'),
        ('silent', 'every restart says what it goes on from'),
        ('part', 'nothing is left behind'),
        ('orphan', 'nothing is left behind'),
        ('deaf', 'faults end what they should end'),
        ('rare', 'at most an interval is lost'),
    ],
)
def test_what_goes_wrong_is_found(soak, fault, found):
    kind = 'sigterm' if fault == 'deaf' else 'kill'
    record = soak(make_plan((35, kind, None)), fault).run()
    assert found in failed(record)
    if fault == 'orphan':
        # With its command, which it has not when it only just began.
        found = [
            re.fullmatch(r'(?:sleep\x003600\x00?)? \((\d+), .*', left)
            for left in record.processes_left
        ]
        pid = next(filter(None, found))[1]
        # It was found, and ended.
        state = Path(f'/proc/{pid}/stat')
        assert not state.exists() or ') Z ' in state.read_text()


def test_a_run_that_hangs_is_ended(soak, monkeypatch):
    monkeypatch.setattr(run_module, 'PATIENCE', 2.0)
    record = soak(make_plan((20, 'kill', None)), 'hangs').run()
    assert record.starts[1].hung
    assert 'both runs end' in failed(record)


def test_no_run_to_compare_with(soak):
    with pytest.raises(SoakError, match='no config'):
        soak(make_plan((20, 'kill', None)), 'fails').run()


def test_ctrl_c_leaves_no_process(soak, monkeypatch):
    started = []
    inject = run_module.WatchedRun.wait

    def interrupt(run, condition, pause=0.02):
        started.extend(run.training.sessions)
        inject(run, lambda: run.step >= 10)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module.WatchedRun, 'wait', interrupt)
    with pytest.raises(KeyboardInterrupt):
        soak(make_plan((20, 'kill', None))).run()
    assert started
    assert [p for p in find_processes(started) if p.state != 'Z'] == []
