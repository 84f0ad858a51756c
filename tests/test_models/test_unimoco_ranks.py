"""W processes with N / W images each do what one process does with N."""

from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from ddp_helpers import run_ddp
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.model.wrappers import MMFullyShardedDataParallel
from mmengine.optim import OptimWrapper
from small_unimoco import SGD, build_unimoco, data_samples, draw_batches
from torch import nn
from torch.distributed import fsdp
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

CONFIGS = Path(__file__).parents[2] / 'configs'
# Of the pre-training configs.
WRAPPER = Config.fromfile(CONFIGS / '_base_/fast_runtime.py').to_dict()
WRAPPER = WRAPPER['model_wrapper_cfg']
del WRAPPER['type']
QUEUES = ('queue', 'label_queue', 'index_queue', 'queue_ptr')


def build(queue_len, norm=None, frozen=False):
    model = build_unimoco(norm, queue_len=queue_len, exclude_own_keys=True)
    for module in model.modules():
        if frozen and isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def train(model, batches, counts=1, lr=SGD['lr'], share=slice(None)):
    """Train on a share of each batch, as mmengine's runner does.

    Returns:
        dict: ``losses`` and ``queues`` (the head's buffers) of each batch,
        ``gradients`` (all in one vector) of each step of the optimizer, and
        the ``state`` at the end.
    """
    torch.manual_seed(7)  # of the shuffles
    bare = getattr(model, 'module', model)
    parameters = [p for p in bare.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, **SGD | dict(lr=lr))
    wrapper = OptimWrapper(optimizer, accumulative_counts=counts)
    wrapper.initialize_count_status(bare, 0, len(batches))
    result = dict(losses=[], queues=[], gradients=[])
    step = optimizer.step

    # Not a step hook: torch 2.1 calls none any more once it has compiled.
    def recorded_step():
        gradient = torch.cat([p.grad.flatten() for p in parameters])
        result['gradients'].append(gradient)
        step()

    optimizer.step = recorded_step
    for views, labels in batches:
        data = dict(
            inputs=[view[share] for view in views],
            data_samples=data_samples(labels)[share],
        )
        logged = model.train_step(data, wrapper)
        result['losses'].append(float(logged['loss']))
        buffers = [getattr(bare.head, name).clone() for name in QUEUES]
        result['queues'].append(buffers)
    return result | dict(state=deepcopy(bare.state_dict()))


def train_rank(rank, world_size, model, sizes, batches, options):
    """The same of one rank; ``model`` are options of :func:`build`."""
    ddp = MMDistributedDataParallel(build(**model), **WRAPPER)
    first = sum(sizes[:rank])
    return train(
        ddp, batches, share=slice(first, first + sizes[rank]), **options
    )


def assert_queues(ranks, one):
    """The same bits on all ranks after each step, and those of one process."""
    for *of_ranks, wanted in zip(
        *(result['queues'] for result in (*ranks, one)), strict=True
    ):
        for other in of_ranks[1:]:
            assert all(map(torch.equal, of_ranks[0], other))
        (keys, *rest), (wanted_keys, *wanted_rest) = of_ranks[0], wanted
        torch.testing.assert_close(keys, wanted_keys, rtol=1e-4, atol=1e-4)
        assert all(map(torch.equal, rest, wanted_rest))


@pytest.mark.parametrize(('world_size', 'counts'), [(2, 2), (4, 1)])
def test_ranks_equal_the_groups_of_one_process(tmp_path, world_size, counts):
    """BN in training, keys shuffled, and gradients of ``counts`` batches."""
    n, options = 16, dict(counts=counts)
    batches = list(draw_batches(steps=5, n=n))
    norm = dict(type='SplitBatchNorm', num_splits=world_size)
    one = train(build(20, norm), batches, **options)
    sizes = [n // world_size] * world_size
    arguments = dict(queue_len=20), sizes, batches, options
    ranks = run_ddp(train_rank, world_size, tmp_path, *arguments)

    assert_queues(ranks, one)
    losses = torch.tensor([rank['losses'] for rank in ranks]).mean(0)
    torch.testing.assert_close(losses, torch.tensor(one['losses']))
    wanted = torch.stack(one['gradients'])
    assert len(wanted) == -(-5 // counts)
    close = dict(rtol=1e-3, atol=1e-4)
    for rank in ranks:
        found = torch.stack(rank['gradients'])
        torch.testing.assert_close(found, wanted, **close)
    for name, value in one['state'].items():
        states = torch.stack([rank['state'][name] for rank in ranks])
        if 'running_' in name:
            states = states.mean(0, keepdim=True)
        for found in states:
            torch.testing.assert_close(found, value, **close, msg=name)


@pytest.mark.parametrize('sizes', [[5, 3], [4, 1, 2, 2]])
def test_uneven_ranks_and_labels_on_one_of_them(tmp_path, sizes):
    """Batches longer than the queue; the weights stay as they are."""
    n, options = sum(sizes), dict(lr=0)
    model = dict(queue_len=6, frozen=True)
    batches = list(draw_batches(steps=4, n=n, unlabeled=0))
    for _, labels in batches:
        labels[sizes[0] :] = -1
    one = train(build(**model), batches, **options)
    arguments = model, sizes, batches, options
    ranks = run_ddp(train_rank, len(sizes), tmp_path, *arguments)
    assert_queues(ranks, one)
    losses = torch.tensor([rank['losses'] for rank in ranks])
    losses = (losses * torch.tensor(sizes)[:, None]).sum(0) / n
    torch.testing.assert_close(losses, torch.tensor(one['losses']))


def _train_with_own_seed(rank, world_size, batches):
    """Return the queue after each step; mmengine may seed ranks apart."""
    model = build_unimoco(seed=rank)
    ddp = MMDistributedDataParallel(model, broadcast_buffers=False)
    queues = [model.head.queue.clone()]
    for views, labels in batches:
        ddp(views, data_samples(labels), mode='loss')['loss'].backward()
        queues.append(model.head.queue.clone())
    return queues


def test_queues_are_equal_from_the_start_whatever_the_seeds(tmp_path):
    batches = list(draw_batches(steps=2, n=4))
    first, second = run_ddp(_train_with_own_seed, 2, tmp_path, batches)
    for queue, other in zip(first, second, strict=True):
        assert torch.equal(queue, other)
    assert not torch.equal(first[0], first[1])


def step_sharded(rank, world_size):
    """Try a step with parameters sharded in three ways; the errors."""
    from torch.distributed.device_mesh import init_device_mesh

    def shard(model, **options):
        return MMFullyShardedDataParallel(
            model,
            device_id=torch.device('cpu'),
            use_orig_params=True,
            **options,
        )

    mesh = init_device_mesh('cpu', (world_size,))
    policy = partial(size_based_auto_wrap_policy, min_num_params=1000)
    wrappers = [
        shard,
        partial(shard, auto_wrap_policy=policy),
        partial(fsdp.fully_shard, mesh=mesh),
    ]
    errors = []
    ((views, labels),) = draw_batches(steps=1)
    for wrap in wrappers:
        model = wrap(build_unimoco())
        try:
            model(views, data_samples(labels), mode='loss')
        except ValueError as error:
            errors.append(str(error))
    return errors


@pytest.mark.skipif(
    not hasattr(fsdp, 'fully_shard'), reason='FSDP on a CPU needs torch 2.6'
)
def test_sharded_parameters_are_refused(tmp_path):
    for errors in run_ddp(step_sharded, 2, tmp_path):
        assert len(errors) == 3
        assert all('sharded over processes' in error for error in errors)
