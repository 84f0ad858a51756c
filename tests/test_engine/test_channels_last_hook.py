from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from ddp_helpers import run_ddp
from mmengine.model import MMDistributedDataParallel
from mmpretrain.registry import HOOKS
from small_unimoco import build_unimoco, data_samples


def _step(model, views, samples):
    loss = model.loss(views, samples)['loss']
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()]


def test_layout_changes_and_results_do_not():
    plain = build_unimoco()
    changed = deepcopy(plain)
    hook = HOOKS.build(dict(type='ChannelsLastHook'))
    hook.before_run(SimpleNamespace(model=changed))

    weight = changed.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    views = list(torch.rand(2, 8, 3, 28, 28))
    assert changed.backbone(views[0])[0].shape == (8, 64, 1, 1)

    plain.double(), changed.double()
    views = [view.double() for view in views]
    samples = data_samples(torch.tensor([0, 1, 0, 1, -1, -1, 2, 2]))
    plain.backbone(views[0])  # as often as the other: BN counts
    loss, gradients = _step(plain, views, samples)
    other_loss, other_gradients = _step(changed, views, samples)
    torch.testing.assert_close(other_loss, loss)
    for other, gradient in zip(other_gradients, gradients, strict=True):
        if gradient is not None:
            torch.testing.assert_close(other, gradient, rtol=1e-5, atol=1e-8)


def test_optimizer_made_before_still_moves_the_weights():
    model = build_unimoco()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hook = HOOKS.build(dict(type='ChannelsLastHook'))
    hook.before_run(SimpleNamespace(model=model))
    before = model.backbone.conv1.weight.detach().clone()
    _step(
        model, list(torch.rand(2, 4, 3, 28, 28)), data_samples(torch.arange(4))
    )
    optimizer.step()
    assert not torch.equal(model.backbone.conv1.weight, before)


def test_operators_of_mmcv_are_refused():
    pytest.importorskip('mmcv._ext')
    from mmcv.ops import RoIAlign

    model = torch.nn.ModuleDict(
        dict(roi_layer=RoIAlign(output_size=7, sampling_ratio=1))
    )
    hook = HOOKS.build(dict(type='ChannelsLastHook'))
    with pytest.raises(ValueError, match="RoIAlign .* 'roi_layer'"):
        hook.before_run(SimpleNamespace(model=model))


def _errors_of_first_gradients(rank, world_size):
    """Largest error of each gradient of the first step of two processes."""

    def wrap(cfg, module):
        return MMDistributedDataParallel(module, broadcast_buffers=False)

    model = build_unimoco()
    model.shuffle_bn = False  # or the twin would draw another permutation
    runner = SimpleNamespace(model=wrap(None, model), cfg={}, wrap_model=wrap)
    HOOKS.build(dict(type='ChannelsLastHook')).before_run(runner)
    twin = deepcopy(model)
    torch.manual_seed(rank)
    views = list(torch.rand(2, 4, 3, 28, 28))
    samples = data_samples(torch.arange(4))
    runner.model(views, samples, mode='loss')['loss'].backward()
    _step(twin, views, samples)
    errors = []
    for ours, theirs in zip(
        model.parameters(), twin.parameters(), strict=True
    ):
        if theirs.grad is not None:
            mean = theirs.grad.contiguous() / world_size
            dist.all_reduce(mean)
            errors.append(((ours.grad - mean).abs() / mean.abs().max()).max())
    return [float(error) for error in errors]


def test_first_gradients_of_several_processes(tmp_path):
    for errors in run_ddp(_errors_of_first_gradients, 2, tmp_path):
        assert len(errors) > 20
        assert max(errors) < 1e-5
