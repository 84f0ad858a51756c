"""Collectives of rows, in gloo processes."""

import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ddp_helpers import run_ddp

from mmunimoco.models.collectives import gather_tensors, new_gloo_group

# A quiet and a signalling NaN with payloads, -0, infinities, a denormal.
ODD_BITS = [0x7FC0BEEF, 0x7F80BEEF, -(2**31), 0x7F800000, -0x800000, 1]


def rank_tensors(rank, count):
    """Tensors of every kind that a step gathers, with odd bit patterns."""
    generator = torch.Generator().manual_seed(rank)

    def draw(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    keys = draw(-(2**31), 2**31, count, 6).int()
    keys[: len(ODD_BITS)] = torch.tensor(ODD_BITS).int()
    return [
        keys.view(torch.float32),
        draw(-(2**62), 2**62, count),
        draw(0, 2, count, 5).bool(),
        draw(-(2**15), 2**15, count, 2, 3).short().view(torch.bfloat16),
        draw(0, 256, count, 1).byte().expand(-1, 3),
        torch.randn(count, generator=generator).double()[:, None],
        torch.randn(4, count, generator=generator).half().t(),
    ]


def bits(x):
    return x.contiguous().reshape(-1).view(torch.uint8)


def assert_same_bits(actual, expected):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert (a.dtype, a.shape) == (e.dtype, e.shape)
        assert torch.equal(bits(a), bits(e))


def gather_on_rank(rank, world_size, counts):
    calls = []
    all_gather = dist.all_gather

    def counted(outputs, tensor, *args, **kwargs):
        calls.append(tuple(tensor.shape))
        return all_gather(outputs, tensor, *args, **kwargs)

    dist.all_gather = counted
    return gather_tensors(rank_tensors(rank, counts[rank]), counts), calls


@pytest.mark.parametrize('counts', [[3, 3], [2, 0], [3, 1, 7, 2]])
def test_gather_is_bit_exact_in_one_collective(counts, tmp_path):
    answers = run_ddp(gather_on_rank, len(counts), tmp_path, counts)
    per_rank = [rank_tensors(r, n) for r, n in enumerate(counts)]
    expected = [torch.cat(parts) for parts in zip(*per_rank, strict=True)]
    row = sum(bits(x[:1]).numel() for x in rank_tensors(0, 1))
    for gathered, calls in answers:
        assert_same_bits(gathered, expected)
        assert calls == [(max(counts), row)]


def gather_tiny_rows(rank, world_size):
    # One row in all: its columns are contiguous but not aligned.
    n = int(rank == 0)
    flags = torch.ones(n, 3, dtype=torch.bool)
    return gather_tensors([flags, torch.full((n,), 7)], [1, 0])


def test_unaligned_columns(tmp_path):
    for flags, sevens in run_ddp(gather_tiny_rows, 2, tmp_path):
        assert flags.tolist() == [[True] * 3]
        assert sevens.tolist() == [7]


def test_one_process_returns_the_given_tensors():
    keys = torch.randn(3, 2, requires_grad=True)
    labels = torch.arange(3)
    gathered = gather_tensors([keys, labels], [3])
    assert not gathered[0].requires_grad
    assert gathered[0].data_ptr() == keys.data_ptr()
    assert torch.equal(gathered[1], labels)


@pytest.mark.parametrize(
    ('lengths', 'batch_sizes'), [([2, 3], [2]), ([2], [2, 2]), ([2], [3])]
)
def test_batch_sizes_must_fit(lengths, batch_sizes):
    with pytest.raises(ValueError, match='batch_sizes=.*must hold the number'):
        gather_tensors([torch.zeros(n) for n in lengths], batch_sizes)


def _make_group(rank, world_size):
    group = new_gloo_group()
    backend = group._get_backend(torch.device('cpu'))
    total = torch.tensor(rank + 1)
    dist.all_reduce(total, group=group)
    return backend.options._timeout, dist.get_backend(group), int(total)


def test_gloo_group_has_the_timeout_of_the_default_one(tmp_path):
    answers = run_ddp(_make_group, 2, tmp_path, timeout=123)
    assert answers == [(timedelta(seconds=123), 'gloo', 3)] * 2


# Python takes a second to end; a collective ends within it.
LATE = """
import sys, time
import torch
import torch.distributed as dist
from mmunimoco.models.collectives import await_gloo_at_exit

class Late:
    def __del__(self, sleep=time.sleep):
        sleep(1)

late, rank = Late(), int(sys.argv[1])
dist.init_process_group(
    'gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2
)
await_gloo_at_exit()
dist.barrier()
time.sleep(0.2 * rank)
# Called by gloo's thread, which takes Python's lock for it.
work = dist.all_reduce(torch.ones(1), async_op=True)
work.get_future().then(lambda _: None)
time.sleep(2 * rank)
"""


def test_gloo_may_finish_while_python_ends(tmp_path):
    command = [sys.executable, '-c', LATE]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / 'store')])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
