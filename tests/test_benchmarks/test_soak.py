"""``python -m benchmarks.soak`` for real, and verdicts on bad news."""

import copy
import json
from pathlib import Path

import pytest
import torch

from benchmarks import soak
from benchmarks.checkpoint_differences import differences
from benchmarks.soak_verdict import describe_memory, judge
from mmunimoco.utils.safe_load import read_checkpoint

PLAN = dict(
    seed=0,
    processes=1,
    images=800,
    epochs=1,
    interval=3,
    faults=[
        dict(kind='full_disk', rank=0, step=7, damage=None),
        dict(kind='kill_saving', rank=0, step=11, damage='corrupted'),
    ],
)

MEMORY = dict(median_mib=1000.0, growth_mib=0.0, start_medians_mib={})


@pytest.fixture(scope='module')
def result(tmp_path_factory):
    """A soak of 17 steps, with a failed save and a corrupted checkpoint."""
    folder = tmp_path_factory.mktemp('soak')
    plan, out = copy.deepcopy(PLAN), folder / 'out.json'
    for fault in plan['faults']:
        fault.update(delay=0.3, place=0.5)
    (folder / 'plan.json').write_text(json.dumps(dict(plan=plan)))
    options = ['--repeat', folder / 'plan.json', '--out', out]
    options += ['--work-dir', folder / 'work']
    soak.main([str(option) for option in options])
    return json.loads(out.read_text()) | dict(folder=folder)


def test_a_real_run_survives(result):
    assert result['passed'], result['verdict']
    first, last = result['record']['starts']
    full, killed = result['record']['faults']
    assert first['failed_saves'] and full['injected'] and killed['injected']
    assert killed['damage'] == 'corrupted'
    assert last['damaged'] in last['said_damaged']
    # Nothing is lost if the kill came after the checkpoint got its name.
    steps = [
        path.read_text().split()
        for path in sorted(result['folder'].glob('work/*/disturbed/*.steps'))
    ]
    assert killed['lost'] == int(steps[0][-2]) - int(steps[1][0])
    assert 0 <= killed['lost'] <= killed['bound']
    assert last['last'] == result['steps'] == 17
    # The comparison would have found a single changed bit.
    paths = sorted(result['folder'].glob('work/*/*disturbed/work/iter_17.pth'))
    one, other = (read_checkpoint(str(path)) for path in paths)
    assert list(differences(one['state_dict'], other['state_dict'])) == []
    name = 'backbone.layer1.1.bn2.weight'
    other['state_dict'][name].view(torch.int32)[0] ^= 1
    found = list(differences(one['state_dict'], other['state_dict']))
    assert found == [f'/{name}']


@pytest.mark.parametrize(
    ('path', 'value', 'verdict'),
    [
        ('starts.1.codes', [1], 'both runs end'),
        ('faults.0.injected', False, 'faults end what they should end'),
        ('starts.0.codes', [0], 'faults end what they should end'),
        ('starts.0.hung', True, 'faults end what they should end'),
        ('starts.1.said', 'iter_1.pth', 'every restart says'),
        ('starts.1.said_damaged', '', 'every restart says'),
        ('faults.1.lost', 99, 'at most an interval'),
        ('starts.1.other_loss', 13, 'every step is'),
        ('starts.0.odd_lines', ['9 0x1p0'], 'every step is'),
        ('differences', ['/state_dict/a'], 'the last checkpoint is'),
        ('starts.1.broken_listed', 1, 'broken images are'),
        ('memory', MEMORY | dict(growth_mib=33.0), 'memory is flat'),
        ('memory', MEMORY | dict(start_medians_mib={'0': 1200.0}), 'memory'),
        ('processes_left', ['python (7)'], 'nothing is left'),
        ('checkpoints_left', list('abcd'), 'nothing is left'),
    ],
)
def test_bad_news(result, path, value, verdict):
    record = copy.deepcopy(result['record'])
    *parents, last = path.split('.')
    place = record
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[last] = value
    found = judge(record)
    (failed,) = [name for name, faults in found.items() if faults]
    assert failed.startswith(verdict)


def test_memory_of_a_leak():
    def samples(leak):
        # 1 000 MiB after a start of 20 samples, more during validations.
        return [
            (0, i, 50.0 * min(i, 20) + leak * i + 500 * (i % 30 < 3))
            for i in range(1, 301)
        ]

    flat = describe_memory(samples(0.0), samples(0.0))
    assert flat['growth_mib'] == 0 and flat['median_mib'] == 1000
    assert flat['start_medians_mib'] == {'0': 1000.0}
    leak = describe_memory(samples(0.5), [])
    assert leak['growth_mib'] == pytest.approx(50, rel=0.1)
    assert describe_memory(samples(0.5)[:50], [])['growth_mib'] is None


def test_faults_of_a_plan():
    class Run:
        step, step_seconds, seconds_to_train = 1000, 0.1, 8.0

    plan = dict(seed=1, processes=2, interval=25)
    faults = soak.draw_faults(plan, Run, 600)
    assert faults == soak.draw_faults(plan, Run, 600)
    assert {fault['kind'] for fault in faults} == set(soak.KINDS)
    assert {fault['rank'] for fault in faults} == {0, 1}
    steps = [fault['step'] for fault in faults]
    assert steps == sorted(steps) and steps[-1] < 950
    assert len(soak.draw_faults(plan, Run, 1)) == 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--minutes', '0'], '--minutes must be above 0'),
        (['--repeat', 'no_such.json'], 'no_such.json'),
        (['--repeat', 'other.json'], 'has no plan'),
    ],
)
def test_wrong_options(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('other.json').write_text('{}')
    with pytest.raises(SystemExit):
        soak.main(options)
    assert message in capsys.readouterr().err
    assert not Path('work_dirs').exists()
