"""tools/benchmarks/soak.py, for real."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.soak.comparison import differences
from benchmarks.soak.plan import KINDS, STOPS, Plan
from mmunimoco.utils.safe_load import read_checkpoint

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/benchmarks/soak.py'
PUBLISHED = ROOT / 'docs/benchmarks/soak_cpu.json'


@pytest.mark.slow
def test_a_real_run_outlives_what_happens_to_it(tmp_path):
    """Five minutes: the faults of the soak that the documentation shows."""
    out, work_dir = tmp_path / 'out.json', tmp_path / 'work'
    done = subprocess.run(
        [
            *(sys.executable, TOOL, '--repeat', PUBLISHED),
            *('--out', out, '--work-dir', work_dir),
        ],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Verdict' in done.stdout and 'NO' not in done.stdout
    results = json.loads(out.read_text())
    plan = Plan.from_dict(results['plan'])
    assert plan == Plan.from_dict(json.loads(PUBLISHED.read_text())['plan'])
    assert {fault.kind for fault in plan.faults} == set(KINDS)
    stops = [fault for fault in plan.faults if fault.kind in STOPS]
    assert results['passed'] and results['restarts'] == len(stops) == 8
    record = results['record']
    assert all(fault['had_effect'] for fault in record['faults'])
    for fault in record['faults']:
        start, *later = record['starts'][fault['start'] :]
        if fault['kind'] == 'full_disk':
            assert fault['step'] in start['failed_saves']
            continue
        assert fault['lost'] == start['last'] - later[0]['first']
        assert fault['lost'] <= fault['bound'] <= 2 * plan.interval
        if fault['damage'] in ('truncated', 'corrupted'):
            assert later[0]['told_damaged'] and later[0]['damaged']
            # By whole intervals, though SIGTERM saved between them.
            assert later[0]['first'] % plan.interval == 0
    assert record['checkpoints_left'][0] == 'iter_393.pth'
    assert results['memory_samples']['undisturbed']
    # One bit of one weight would have been another verdict.
    last, other = (
        read_checkpoint(str(path))
        for path in sorted(work_dir.glob('*/*disturbed/work/iter_393.pth'))
    )
    assert list(differences(last['state_dict'], other['state_dict'])) == []
    name = 'encoder_k.module.0.layer1.1.bn2.weight'
    other['state_dict'][name].view(torch.int32)[0] ^= 1
    (found,) = differences(last['state_dict'], other['state_dict'])
    assert found == f'/{name}'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--minutes', '0'], '--minutes must be above 0'),
        (['--processes', '0'], '--processes must be 1 or more'),
        (['--seed', '-1'], '--seed must be 0 or more'),
        (['--out', 'a.txt'], '--out must end with .json'),
        (['--repeat', 'no_such.json'], 'No such file'),
        (['--repeat', 'other.json'], 'no plan of a soak'),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path('other.json').write_text('{}')
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path('work_dirs').exists()
