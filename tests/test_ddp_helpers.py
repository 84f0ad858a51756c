import os
import time

import pytest
import torch
import torch.distributed as dist
from ddp_helpers import run_ddp


def _sum_of_ranks(rank, world_size, extra):
    assert dist.get_world_size() == world_size == int(os.environ['WORLD_SIZE'])
    x = torch.tensor(rank + extra)
    dist.all_reduce(x)
    return rank, x


def _fail_on_rank_one(rank, world_size):
    if rank == 1:
        raise KeyError('a fault of rank one')
    dist.barrier()


def _sleep(rank, world_size):
    time.sleep(60)


def _die(rank, world_size):
    os._exit(3)


@pytest.mark.parametrize('world_size', [1, 2, 4])
def test_returns_what_each_rank_returned(world_size, tmp_path):
    results = run_ddp(_sum_of_ranks, world_size, tmp_path, 10)
    total = 10 * world_size + sum(range(world_size))
    assert results == [(rank, total) for rank in range(world_size)]


def test_raises_the_traceback_of_a_rank(tmp_path):
    start = time.monotonic()
    with pytest.raises(RuntimeError, match='Rank 1(.|\n)*a fault of rank one'):
        run_ddp(_fail_on_rank_one, 2, tmp_path, timeout=60)
    assert time.monotonic() - start < 50


def test_ends_processes_that_hang(tmp_path):
    with pytest.raises(TimeoutError, match=r'\[0\]'):
        run_ddp(_sleep, 1, tmp_path, timeout=1)


def test_reports_a_dead_rank(tmp_path):
    with pytest.raises(RuntimeError, match='Rank 0 died'):
        run_ddp(_die, 1, tmp_path)
