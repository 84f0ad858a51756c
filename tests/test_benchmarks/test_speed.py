"""``python -m benchmarks.speed`` with every case much reduced."""

import json

import pytest

from benchmarks import head, speed
from benchmarks.images import write_images
from benchmarks.measure import quartiles, ratio, time_interleaved


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
    # No path of this machine in the record.
    assert str(tmp_path) not in out.read_text()


def test_head_stops_if_the_losses_differ(monkeypatch):
    config, formula = head.LOSSES['UniCon']
    wrong = config, lambda *args: 1.001 * formula(*args)
    monkeypatch.setitem(head.LOSSES, 'UniCon', wrong)
    problem = head.Problem(queue_len=64, batch=4, dim=8)
    with pytest.raises(RuntimeError, match='losses differ'):
        head.measure([problem], 'cpu', 1)


def test_memory_of_the_head_is_flat_in_the_queue():
    short, long = (
        head.Problem(queue_len=length, batch=128) for length in (8192, 32768)
    )
    result = head.measure([short, long], 'cpu', 1)
    peaks = [result['peak_bytes'][str(x)]['ours'] for x in (short, long)]
    assert peaks[1] < 1.5 * peaks[0]
    assert result['memory_ratios'][str(long)] <= 0.10


def test_contestants_take_turns():
    calls = []
    contestants = {x: lambda x=x: calls.append(x) for x in 'abc'}
    seconds = time_interleaved(contestants, 2, 'cpu', warmup=1)
    assert ''.join(calls) == 'abcbcacab'
    assert [len(values) for values in seconds.values()] == [2, 2, 2]
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == dict(
        median=2.5, q1=1.75, q3=3.25, n=4
    )
    assert ratio([1.0, 8.0], [2.0, 4.0])['median'] == 1.25


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--cases', 'head,heads', '--out', 'a.json'], 'unknown heads'),
        (['--out', 'a.txt'], '--out must end with .json'),
        (['--workers', '0', '--out', 'a.json'], '--workers must be at least'),
    ],
)
def test_wrong_options(options, message, capsys):
    with pytest.raises(SystemExit):
        speed.main(options)
    assert message in capsys.readouterr().err
