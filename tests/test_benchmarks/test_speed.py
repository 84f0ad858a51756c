"""``python -m benchmarks.speed`` with every case much reduced."""

import json
import time
from multiprocessing import get_context

import pytest

from benchmarks import head, speed
from benchmarks.budget import Budget, OutOfTime
from benchmarks.contest import contest
from benchmarks.images import write_images
from benchmarks.measure import quartiles, ratio
from benchmarks.trainer import graphs_config


def test_every_case(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / 'images', count=4)
    monkeypatch.setenv('IMAGENET_SAMPLES', str(tmp_path / 'images'))
    out = tmp_path / 'speed.json'
    assert speed.main(['--quick', '--device', 'cpu', '--out', str(out)]) == 0
    report = json.loads(out.read_text())
    assert set(speed.CASES) <= set(report)
    printed = capsys.readouterr().out
    for name in speed.CASES:
        assert report[name]['ratios']
        assert not report[name].get('left_out')
        for what, value in report[name]['ratios'].items():
            assert what[:20] in printed
            if isinstance(value, dict):
                assert 0 < value['q1'] <= value['median'] <= value['q3']
    memory = report['head']['peak_bytes']
    for name, found in report['head']['memory_ratios'].items():
        peaks = memory[name]
        assert found == pytest.approx(
            peaks['ours'] / peaks['published'], rel=1e-3
        )
    # With all_gather every process sends its whole batch to the other one.
    batch = 32 * 3 * 32 * 32 * 4
    assert report['shuffle']['all_gather_bytes_per_process'] == {'2': batch}
    assert report['shuffle']['bytes_per_process']['2'] < batch
    assert report['versions']['torch'] and report['machine']['cores'] >= 1
    assert report['images'].startswith('4 photographs')
    assert report['decode']['encoded_on_device'] == 4
    assert report['cifar']['seconds']['kNN']['median'] > 0
    # No path of this machine in the record.
    assert str(tmp_path) not in out.read_text()


def test_config_with_graphs():
    """Of the contestant that only a GPU can run."""
    cfg = graphs_config()
    hooks = [x for x in cfg.custom_hooks if x['type'] == 'StepOptionsHook']
    assert [hook.compile for hook in hooks] == ['cuda-graphs']


def test_wrong_losses_are_left_out(monkeypatch):
    config, formula = head.LOSSES['UniCon']
    wrong = config, lambda *args: 1.001 * formula(*args)
    monkeypatch.setitem(head.LOSSES, 'UniCon', wrong)
    problem = head.Problem(queue_len=64, batch=4, dim=8)
    result = head.measure([problem], 'cpu', 1)
    (why,) = result['left_out'].values()
    assert why.startswith('failed: ') and 'losses differ' in why
    assert not result['ratios']


def test_memory_of_the_head_is_flat_in_the_queue():
    short, long = (
        head.Problem(queue_len=length, batch=128) for length in (8192, 32768)
    )
    result = head.measure([short, long], 'cpu', 1)
    peaks = [result['peak_bytes'][str(x)]['ours'] for x in (short, long)]
    assert peaks[1] < 1.5 * peaks[0]
    assert result['memory_ratios'][str(long)] <= 0.10


def test_contestants_take_turns():
    calls, saved = [], []
    builders = {
        x: lambda x=x: lambda: calls.append(x) or float(len(calls))
        for x in 'abc'
    }
    found = contest(
        builders, 2, save=lambda found: saved.append(list(found.values))
    )
    # Warmed up and measured one after the other, then in turns.
    assert ''.join(calls) == 'aabbcc' + 'abc' + 'bca'
    assert found.values == dict(a=[7, 12], b=[8, 10], c=[9, 11])
    assert saved == [['a'], ['a', 'b'], ['a', 'b', 'c']]
    assert not found.left_out
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == dict(
        median=2.5, q1=1.75, q3=3.25, n=4
    )
    assert ratio([1.0, 8.0], [2.0, 4.0])['median'] == 1.25


def test_contest_keeps_its_time():
    def fail():
        raise RuntimeError('no kernel')

    def never_ready():
        time.sleep(60)

    def sleep():
        time.sleep(0.1)
        return 1.0

    start = time.monotonic()
    found = contest(
        dict(
            first=lambda: sleep,
            broken=fail,
            slow=never_ready,
            last=lambda: sleep,
        ),
        1000,
        Budget(1.5),
    )
    assert time.monotonic() - start < 2.5
    # Measured once, before the slow one took all time.
    assert found.values == dict(first=[1.0])
    assert found.left_out == dict(
        broken='failed: no kernel',
        slow='was not ready in time',
        last='no time was left',
        rounds='1000 of 1000',
    )
    rounds = contest(dict(first=lambda: sleep), 1000, Budget(1.0))
    assert 3 <= len(rounds.values['first']) <= 9
    assert rounds.left_out['rounds'].endswith(' of 1000')


def test_limits_are_nested():
    outer, inner = Budget(0.3), Budget(10)
    start = time.monotonic()
    with pytest.raises(OutOfTime), outer.limit():
        with inner.limit():
            time.sleep(0.1)
        time.sleep(5)
    assert time.monotonic() - start < 1


def send_seconds_running(sender):
    time.sleep(0.5)
    sender.send(speed.seconds_running())


def test_start_up_counts():
    context = get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    start = time.monotonic()
    process = context.Process(target=send_seconds_running, args=(sender,))
    process.start()
    assert 0.49 < receiver.recv() < time.monotonic() - start + 0.02
    process.join()


def test_minutes(tmp_path, monkeypatch, capsys):
    """What is over budget, or fails, is in the file; the rest is measured."""

    def waits(settings):
        settings.save(dict(ratios=dict(early=1.0), left_out={}))
        with settings.budget.limit():
            time.sleep(60)

    def fails(settings):
        raise RuntimeError('out of memory')

    cases = dict(waits=waits, fails=fails, good=lambda _: dict(ratios={}))
    monkeypatch.setattr(speed, 'CASES', cases)
    monkeypatch.setattr(speed, 'seconds_running', lambda: 0.0)
    out = tmp_path / 'speed.json'
    options = ['--device', 'cpu', '--images', str(tmp_path)]
    write_images(tmp_path, count=1)
    options += ['--cases', 'waits,fails,good', '--minutes', '0.05']
    start = time.monotonic()
    assert speed.main([*options, '--out', str(out)]) == 1
    assert time.monotonic() - start < 6
    report = json.loads(out.read_text())
    assert report['waits']['ratios'] == dict(early=1.0)
    assert report['waits']['left_out'] == dict(waits='no time was left')
    assert report['fails']['left_out'] == dict(fails='failed: out of memory')
    assert 'left_out' not in report['good']
    assert 'waits: left out: waits: no time' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--cases', 'head,heads', '--out', 'a.json'], 'unknown heads'),
        (['--out', 'a.txt'], '--out must end with .json'),
        (['--minutes', '0', '--out', 'a.json'], '--minutes must be positive'),
        (['--batch', '32,1', '--out', 'a.json'], 'must be at least 2'),
        (['--workers', '0', '--out', 'a.json'], '--workers must be at least'),
    ],
)
def test_wrong_options(options, message, capsys):
    with pytest.raises(SystemExit):
        speed.main(options)
    assert message in capsys.readouterr().err
