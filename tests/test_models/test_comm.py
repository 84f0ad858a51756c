from datetime import timedelta

import torch
import torch.distributed as dist
from ddp_helpers import run_ddp

from mmunimoco.models.comm import new_control_group


def _make_group(rank, world_size):
    group = new_control_group()
    backend = group._get_backend(torch.device('cpu'))
    total = torch.tensor(rank + 1)
    dist.all_reduce(total, group=group)
    return backend.options._timeout, dist.get_backend(group), int(total)


def test_control_group_waits_as_long_as_the_default_one(tmp_path):
    answers = run_ddp(_make_group, 2, tmp_path, timeout=123)
    assert answers == [(timedelta(seconds=123), 'gloo', 3)] * 2
