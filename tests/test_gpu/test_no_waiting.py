"""Whole training steps while CUDA forbids the host to wait for the GPU."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from small_unimoco import SGD, build_unimoco, data_samples, draw_batches
from step_options import HEADS

WRAPPERS = {
    'float32': dict(type='OptimWrapper'),
    'bfloat16': dict(
        type='AmpOptimWrapper',
        dtype='bfloat16',
        loss_scale=dict(enabled=False),
    ),
}


@pytest.fixture
def forbid_waiting():
    """Call to make every synchronisation an error until the test ends."""
    yield lambda: torch.cuda.set_sync_debug_mode('error')
    torch.cuda.set_sync_debug_mode('default')


@pytest.mark.gpu
@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('norm', ['BN', 'SplitBatchNorm'])
@pytest.mark.parametrize('head', HEADS)
def test_host_never_waits(head, norm, wrapper, forbid_waiting):
    """From images in pinned memory to updated weights."""
    splits = dict(num_splits=4) if norm == 'SplitBatchNorm' else {}
    model = build_unimoco(
        dict(type=norm, **splits),
        options=dict(data_preprocessor=dict(non_blocking=True)),
        num_classes=3,
        **HEADS[head],
    ).cuda()
    wrapper = build_optim_wrapper(
        model, WRAPPERS[wrapper] | dict(optimizer=dict(type='SGD', **SGD))
    )
    logs = []
    for step, (views, labels) in enumerate(draw_batches(4)):
        data = dict(
            inputs=[view.pin_memory() for view in views],
            data_samples=data_samples(labels),
        )
        # The first steps read the momentum encoder's counter, and let
        # libraries set themselves up.
        if step == 2:
            forbid_waiting()
        logs.append(model.train_step(data, wrapper))
    torch.cuda.set_sync_debug_mode('default')
    assert all(x.isfinite() for log in logs for x in log.values())


@pytest.mark.gpu
def test_waiting_is_noticed(forbid_waiting):
    x = torch.ones(3, device='cuda')
    forbid_waiting()
    with pytest.raises(RuntimeError, match='synchroniz'):
        x.sum().item()
