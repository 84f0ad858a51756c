"""UniMoCo on several processes."""

from copy import deepcopy

import pytest
import torch
from ddp_helpers import run_ddp
from mmengine.model import MMDistributedDataParallel
from small_unimoco import (
    QUEUE_LEN,
    SGD,
    build_unimoco,
    data_samples,
    draw_batches,
    train_step,
    trained_parameters,
)
from torch import nn


def _train_rank(rank, world_size, state, data, frozen):
    """Steps on this rank's share, through DDP, as the runner does it."""
    model = build_unimoco()
    model.load_state_dict(state)
    if frozen:
        _freeze_statistics(model)
    ddp = MMDistributedDataParallel(model)
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    losses = []
    for views, labels in data:
        n = len(labels) // world_size
        share = slice(rank * n, (rank + 1) * n)
        out = ddp(
            [view[share] for view in views],
            data_samples(labels[share]),
            mode='loss',
        )
        optimizer.zero_grad()
        out['loss'].backward()
        optimizer.step()
        losses.append(out['loss'].item())
    return losses, model.state_dict()


def _freeze_statistics(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize('world_size', [2, 4])
def test_ranks_equal_one_process_with_frozen_statistics(tmp_path, world_size):
    """W processes with N / W images each do what one does with N."""
    model = build_unimoco()
    state, data = deepcopy(model.state_dict()), list(draw_batches(steps=4))
    _freeze_statistics(model)
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    wanted = [train_step(model, optimizer, *batch) for batch in data]
    results = run_ddp(_train_rank, world_size, tmp_path, state, data, True)
    losses = torch.tensor([r[0] for r in results]).mean(0)
    torch.testing.assert_close(losses, torch.tensor(wanted))
    for _, rank_state in results:
        for name, value in model.state_dict().items():
            torch.testing.assert_close(
                rank_state[name], value, rtol=1e-4, atol=1e-5, msg=name
            )


def _train_with_own_seed(rank, world_size, data):
    """As mmengine seeds with ``diff_rank_seed``; the queues of each step."""
    model = build_unimoco(seed=rank)
    ddp = MMDistributedDataParallel(model, broadcast_buffers=False)
    queues = [model.head.queue.clone()]
    for views, labels in data:
        ddp(views, data_samples(labels), mode='loss')['loss'].backward()
        queues.append(model.head.queue.clone())
    return queues


def test_queues_are_equal_from_the_start_whatever_the_seeds(tmp_path):
    data = list(draw_batches(steps=2, n=4))
    first, second = run_ddp(_train_with_own_seed, 2, tmp_path, data)
    for queue, other in zip(first, second, strict=True):
        assert torch.equal(queue, other)
    assert not torch.equal(first[0], first[1])


def test_ranks_stay_identical_with_shuffled_batch_norm(tmp_path):
    state, data = (
        deepcopy(build_unimoco().state_dict()),
        list(draw_batches(steps=4)),
    )
    (_, first), (_, second) = run_ddp(
        _train_rank, 2, tmp_path, state, data, False
    )
    for name, value in first.items():
        # Each rank has BN statistics of its own, and nothing else.
        if 'running_' not in name:
            assert torch.equal(value, second[name]), name
    assert int(first['head.queue_ptr']) == 32 % QUEUE_LEN
    assert not torch.equal(first['head.queue'], state['head.queue'])
