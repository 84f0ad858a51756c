"""The report of a run that was cut off keeps what was done."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import gpu_report

ROOT = Path(__file__).parents[2]
TESTS = """\
import os
import pytest

def test_good(record_property):
    record_property('value_error', '1e-7')

def test_bad():
    assert 1 == 2

@pytest.mark.skip(reason='why not')
def test_skipped():
    pass

def test_hangs():
    os._exit(137)  # as SIGKILL after the time limit

def test_not_reached():
    pass
"""


def test_cut_off(tmp_path, capsys):
    (tmp_path / 'test_some.py').write_text(TESTS)
    folder, out = tmp_path / 'check', tmp_path / 'report.json'
    folder.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'pytest', 'test_some.py'),
            *('-p', 'benchmarks.pytest_lines'),
            *('--lines', str(folder / 'tests.jsonl')),
        ],
        cwd=tmp_path,
        env=os.environ | dict(PYTHONPATH=str(ROOT)),
        capture_output=True,
    )
    (folder / 'tests.status').write_text(str(done.returncode))
    (folder / 'step.status').write_text('')
    (folder / 'data.status').write_text('left out\n')
    ratio = dict(median=0.5, q1=0.4, q3=0.6, n=3)
    speed = dict(
        device='cuda',
        options=dict(cases=['step', 'augment']),
        step=dict(ratios=dict(a=ratio), left_out=dict(b='not ready')),
    )
    (folder / 'step.json').write_text(json.dumps(speed))
    assert gpu_report.main([str(folder), '--out', str(out)]) == 1
    report = json.loads(out.read_text())
    assert report['passed'] is False
    assert report['parts'] == dict(data='left out', step=None, tests=137)
    assert report['device'] == 'cuda'
    assert report['speed']['step']['ratios'] == dict(a=ratio)
    assert report['left_out'] == {
        'data': 'no time was left',
        'step: b': 'not ready',
        'augment': 'its process was stopped before',
    }
    tests = report['tests']['tests']
    failures, measured = tests.pop('failures'), tests.pop('measured')
    assert tests == dict(
        selected=5, not_reached=2, passed=1, failed=1, skipped=1
    )
    assert 'assert 1 == 2' in failures['test_some.py::test_bad']
    assert measured['test_some.py::test_good'] == dict(value_error='1e-7')
    printed = capsys.readouterr().out
    assert '2 not_reached' in printed and 'step: a: 0.5' in printed


def test_batch_sizes_of_a_case_are_joined(tmp_path):
    """They are measured in processes of their own, the files' order aside."""
    for batch, seconds in (32, 0.02), (256, 0.08):
        name = f'ours, batch {batch}'
        report = dict(
            options=dict(cases=['step']),
            step=dict(
                seconds={name: dict(median=seconds)}, ratios={}, left_out={}
            ),
        )
        (tmp_path / f'step-{batch}.json').write_text(json.dumps(report))
    step = gpu_report.summarize(tmp_path)['speed']['step']
    assert list(step['seconds']) == ['ours, batch 256', 'ours, batch 32']
    assert step['ratios'] == {'ours, batch 32 / an eighth of batch 256': 2.0}


def test_report_imports_nothing_slow():
    """It runs after every part, in time that the parts would have."""
    code = (
        'import runpy, sys; runpy.run_path("benchmarks/gpu_report.py"); '
        'sys.exit(bool({"torch", "mmengine", "numpy"} & sys.modules.keys()))'
    )
    assert (
        subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
    )
