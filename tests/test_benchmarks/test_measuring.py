"""The tools of the benchmark: clocks, memory, operations, images."""

import pytest
import torch
from torch import nn

from benchmarks import timing
from benchmarks.flops import count_flops, matmul_rate
from benchmarks.formats import in_bytes, in_rate, in_ratio, in_time
from benchmarks.images import (
    HEIGHT,
    WIDTH,
    choose_images,
    draw_images,
    find_images,
    link_images,
)
from benchmarks.peak_memory import peak_extra_bytes, running_peak
from benchmarks.saved_tensors import saved_bytes
from benchmarks.timing import ratio_spread, spread, time_interleaved
from benchmarks.trainer import rate_of_epoch


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    now = [0.0]
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: now[0])
    return now


def test_contestants_take_turns(clock):
    order = []

    def contestant(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds

        return run

    ticks = []
    seconds = time_interleaved(
        {'a': contestant('a', 1.0), 'b': contestant('b', 4.0)},
        repeats=3,
        device='cpu',
        warmup=1,
        tick=lambda: ticks.append(len(order)),
    )
    assert seconds == {'a': [1.0] * 3, 'b': [4.0] * 3}
    assert ''.join(order) == 'abbaabba'
    assert ticks == [2, 4, 6, 8]
    assert ratio_spread(seconds['a'], seconds['b'])['median'] == 0.25


def test_spread_is_median_and_quartiles():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == dict(
        median=3.0, q1=2.0, q3=4.0, n=5
    )
    # Within rounds: a slow round slows both, and the ratio stays.
    assert ratio_spread([1.0, 10.0], [2.0, 20.0]) == dict(
        median=0.5, q1=0.5, q3=0.5, n=2
    )


def test_rate_leaves_out_what_was_loaded_before(clock):
    def load():
        for seconds in (100.0, 2.0, 2.0, 2.0):
            clock[0] += seconds
            yield seconds

    def consume(batch):
        clock[0] += 1.0

    rate = rate_of_epoch(load(), 6, 1, consume, 'cpu')
    assert rate == 3 * 6 / (3 * 3.0)


def test_peak_counts_what_is_alive_at_once():
    def run():
        first = torch.empty(1000, 1000)
        second = torch.empty(500, 1000)
        del first
        return second, torch.empty(250, 1000)

    assert peak_extra_bytes(run, 'cpu') == 1500 * 1000 * 4


def test_peak_sees_temporaries_inside_operators():
    values = torch.randn(1000, 1000)
    # logsumexp subtracts the maximum in a matrix of its own.
    assert peak_extra_bytes(lambda: values.logsumexp(1), 'cpu') >= 4_000_000
    assert peak_extra_bytes(lambda: values.amax(1), 'cpu') < 10_000


def test_running_peak():
    assert running_peak([]) == 0
    assert running_peak([5, -5, 3, 4, -2]) == 7
    assert running_peak([-5, 3]) == 0  # freed what was there before


def test_flops_of_a_product_and_the_rate_of_the_device():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    c = torch.zeros(3, 5)
    assert count_flops(lambda: a @ b) == 2 * 3 * 4 * 5
    assert count_flops(lambda: c.addmm_(a, b)) == 2 * 3 * 4 * 5
    rate = matmul_rate('cpu', torch.float32, repeats=2)
    assert 1e8 < rate['q1'] <= rate['median'] <= rate['q3'] < 1e14


def test_saved_bytes_are_those_of_storages_not_of_tensors():
    linear = nn.Linear(8, 4)
    x = torch.randn(16, 8)
    # The input, and the result of exp; the weight was there before.
    saved = saved_bytes(lambda: linear(x).exp().view(-1), linear)
    assert saved == 4 * (16 * 8 + 16 * 4)


@pytest.mark.parametrize(
    ('count', 'text'),
    [
        (12, '12 B'),
        (3400, '3.4 kB'),
        (5.6e6, '5.6 MB'),
        (7.8e12, '7.8e+03 GB'),
    ],
)
def test_bytes_for_people(count, text):
    assert in_bytes(count) == text


def test_numbers_for_people():
    assert in_time(dict(median=0.1234)) == '123 ms'
    assert in_time(dict(median=1.234)) == '1.23 s'
    assert in_rate(dict(median=456.7)) == '457 img/s'
    ratio = dict(median=0.21, q1=0.2, q3=0.223)
    assert in_ratio(ratio) == '0.21 (0.2 ... 0.223)'


def test_images_are_drawn_where_none_are_given(tmp_path, monkeypatch):
    monkeypatch.delenv('IMAGENET_SAMPLES', raising=False)
    drawn = draw_images(tmp_path / 'drawn', count=3)
    sizes = [path.stat().st_size for path in drawn]
    # As large as ImageNet's, which are 110 kB on average.
    assert all(80_000 < size < 140_000 for size in sizes)
    assert len({path.read_bytes() for path in drawn}) == 3
    monkeypatch.setenv('IMAGENET_SAMPLES', str(tmp_path / 'drawn'))
    folder, described = choose_images(None, tmp_path / 'other')
    assert folder == tmp_path / 'drawn'
    assert described.startswith('3 photographs, JPEG')
    assert str(tmp_path) not in described
    assert (HEIGHT, WIDTH) == (375, 500)


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='--images'):
        choose_images(tmp_path, tmp_path / 'other')


def test_links_are_spread_over_the_folder(tmp_path):
    for index in range(10):
        (tmp_path / f'{index}.JPEG').write_text(str(index))
    folder = link_images(tmp_path, 5, tmp_path / 'links')
    read = [path.read_text() for path in find_images(folder)]
    assert read == ['0', '2', '4', '6', '8']
    few = link_images(folder, 50, tmp_path / 'all')
    assert len(find_images(few)) == 5
