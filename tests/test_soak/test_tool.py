"""tools/benchmarks/soak.py, for real but short."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmunimoco.soak.comparison import differences
from mmunimoco.soak.plan import Fault, Plan
from mmunimoco.utils.safe_load import read_checkpoint

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/benchmarks/soak.py'


@pytest.mark.slow
def test_a_real_run_outlives_what_happens_to_it(tmp_path):
    faults = (
        Fault(25, 'full_disk', 0.2, 0, None, 0.5),
        Fault(62, 'kill_saving', 0.1, 0, 'corrupted', 0.7),
        Fault(94, 'sigterm', 0.7, 0, 'truncated', 0.6),
    )
    plan = Plan(0, 1, 1, 131, 20, faults)
    earlier = tmp_path / 'earlier.json'
    earlier.write_text(json.dumps(dict(plan=plan.as_dict())))
    out = tmp_path / 'out.json'
    work_dir = tmp_path / 'work'
    done = subprocess.run(
        [
            *(sys.executable, TOOL, '--repeat', earlier),
            *('--out', out, '--work-dir', work_dir),
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Verdict' in done.stdout and 'NO' not in done.stdout
    results = json.loads(out.read_text())
    assert results['passed'] and results['restarts'] == 2
    assert Plan.from_dict(results['plan']) == plan
    record = results['record']
    assert record['starts'][0]['failed_saves'] == [40]
    saving, preempted = record['faults'][1:]
    for fault in (saving, preempted):
        start, after = record['starts'][fault['start'] :][:2]
        assert after['told_damaged'] and after['damaged']
        assert fault['lost'] == start['last'] - after['first']
        # By whole intervals, though SIGTERM saved between them.
        assert after['first'] % 20 == 0
    assert 0 < preempted['lost'] <= preempted['bound'] == 20
    assert record['checkpoints_left'][0] == 'iter_131.pth'
    assert results['memory_samples']['undisturbed']
    # One bit of one weight would have been another verdict.
    last, other = (
        read_checkpoint(str(path))
        for path in sorted(work_dir.glob('*/*disturbed/work/iter_131.pth'))
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
