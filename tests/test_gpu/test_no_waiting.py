"""Whole training steps while CUDA raises if the host waits for the GPU."""

from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from small_unimoco import SGD, build_unimoco, data_samples, draw_batches
from step_options import HEADS

from mmunimoco.engine import NonFiniteLossHook

WRAPPERS = {
    'float32': dict(type='OptimWrapper'),
    'bfloat16': dict(
        type='AmpOptimWrapper',
        dtype='bfloat16',
        loss_scale=dict(enabled=False),
    ),
}
# Views stay as they are, with a NaN in them.
UNCHANGED = dict(
    type='TwoViewAugment', jitter_prob=0.0, gray_prob=0.0, blur_prob=0.0
)


@pytest.fixture
def forbid_waiting():
    """Return a function that makes every synchronisation an error."""
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
        options=dict(data_preprocessor=dict(type='TwoViewAugment')),
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
        # The first steps read the momentum encoder's counter and initialise
        # libraries.
        if step == 2:
            forbid_waiting()
        logs.append(model.train_step(data, wrapper))
    torch.cuda.set_sync_debug_mode('default')
    assert all(x.isfinite() for log in logs for x in log.values())


@pytest.mark.gpu
@pytest.mark.parametrize('fused', [False, True])
def test_host_does_not_wait_for_a_skipped_step(fused, forbid_waiting):
    """A NaN image, with the guard of the optimizer and the hook."""
    if fused and 'fused' not in signature(torch.optim.SGD).parameters:
        pytest.skip('this torch has no fused SGD')
    model = build_unimoco(
        options=dict(data_preprocessor=UNCHANGED),
        num_classes=3,
    ).cuda()
    optimizer = dict(type='SGD', **SGD) | (dict(fused=True) if fused else {})
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=optimizer)
    )
    runner = SimpleNamespace(
        epoch=0, iter=0, model=model, optim_wrapper=wrapper
    )
    hook = NonFiniteLossHook()
    hook._is_due = lambda *_: False
    hook.before_train(runner)
    hook.before_train_iter(runner)
    kept = []
    for step, (views, labels) in enumerate(draw_batches(4)):
        if step == 3:
            views[0][0, 0, 0, 0] = float('nan')
        data = dict(
            inputs=[view.pin_memory() for view in views],
            data_samples=data_samples(labels),
        )
        if step == 2:
            forbid_waiting()
        logs = model.train_step(data, wrapper)
        hook.after_train_iter(runner, step, data, logs)
        kept.append([p.detach().clone() for p in model.backbone.parameters()])
    torch.cuda.set_sync_debug_mode('default')
    bad = torch.stack([step.bad for step in hook._waiting]).tolist()
    assert bad == [[False, False]] * 3 + [[True, True]]
    assert all(p.isfinite().all() for p in kept[3])
    assert not all(map(torch.equal, kept[1], kept[2]))
    # Unless fused, momentum still moves the weights.
    assert all(map(torch.equal, kept[2], kept[3])) == fused
    assert model.head.queue.isfinite().all()


@pytest.mark.gpu
def test_waiting_is_noticed(forbid_waiting):
    x = torch.ones(3, device='cuda')
    forbid_waiting()
    with pytest.raises(RuntimeError, match='synchroniz'):
        x.sum().item()
