"""Each switch of a fast step: what it turns on, and that results stay."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ddp_helpers import run_ddp
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import HOOKS, MODELS
from small_unimoco import (
    DIM,
    SGD,
    build_unimoco,
    compute_loss,
    data_samples,
    draw_batches,
    train_step,
    trained_parameters,
)
from torch import nn

from mmunimoco.engine import fused_optimizer

BASE = Path(__file__).parents[2] / 'configs' / '_base_'
VIT = dict(
    type='VisionTransformer',
    arch=dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
    ),
    img_size=32,
    patch_size=8,
)


def apply_hook(model, **cfg):
    HOOKS.build(cfg).before_run(SimpleNamespace(model=model))
    return model


def train(model, steps=3):
    """Losses of some steps."""
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    return torch.tensor(
        [train_step(model, optimizer, *b) for b in draw_batches(steps)]
    )


def assert_same_training(model, other):
    torch.testing.assert_close(train(other), train(model))
    state, wanted = other.state_dict(), model.state_dict()
    assert list(state) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(
            state[name], value, rtol=1e-4, atol=1e-5, msg=name
        )


def test_compiled_encoders():
    """Same names, same training, same images without gradient."""
    model, graphs = build_unimoco(), []

    def backend(graph, inputs):
        graphs.append(torch.is_grad_enabled())
        return graph.forward

    compiled = apply_hook(
        deepcopy(model), type='CompileEncodersHook', backend=backend
    )
    assert_same_training(model, compiled)
    # Of query and key encoder, each backbone and neck.
    assert graphs.count(True) >= 2 and graphs.count(False) >= 2
    model.eval(), compiled.eval()
    x = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(
        compiled.extract_feat(x)[0], model.extract_feat(x)[0]
    )


def kept_bytes(model):
    """Bytes kept for the backward pass of one step."""
    storages = {}

    def pack(x):
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    ((views, labels),) = draw_batches(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        compute_loss(model, views, labels)
    return sum(storages.values())


def vit_unimoco():
    neck = dict(
        type='MoCoV2Neck',
        in_channels=16,
        hid_channels=32,
        out_channels=DIM,
        with_avg_pool=False,
    )
    return build_unimoco(options=dict(backbone=VIT, neck=neck))


@pytest.mark.parametrize('build', [build_unimoco, vit_unimoco])
def test_checkpointed_gradients(build):
    """Batch statistics included, with less kept for the backward pass."""
    model = build()
    checkpointed = apply_hook(deepcopy(model), type='GradientCheckpointHook')
    less, more = kept_bytes(deepcopy(checkpointed)), kept_bytes(model)
    model, checkpointed = (
        build(),
        apply_hook(build(), type='GradientCheckpointHook'),
    )
    assert less < 0.7 * more
    assert_same_training(model, checkpointed)


def test_checkpointed_and_compiled():
    model = build_unimoco()
    both = apply_hook(deepcopy(model), type='GradientCheckpointHook')
    both = apply_hook(both, type='CompileEncodersHook', backend='eager')
    assert_same_training(model, both)


def test_hooks_name_models_they_do_not_fit():
    resnet = MODELS.build(dict(type='ResNet', depth=18))
    with pytest.raises(ValueError, match='a ResNet'):
        apply_hook(resnet, type='CompileEncodersHook')
    model = SimpleNamespace(backbone=nn.Linear(2, 2))
    with pytest.raises(ValueError, match='a Linear.*`blocks`'):
        HOOKS.build(dict(type='GradientCheckpointHook')).before_run(
            SimpleNamespace(model=model)
        )
    with pytest.raises(ValueError, match='list of class names'):
        HOOKS.build(dict(type='GradientCheckpointHook', blocks='Bottleneck'))


def build_wrapper(model, **optimizer):
    return build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor='FusedOptimWrapperConstructor',
            optimizer=optimizer,
        ),
    )


def test_fused_optimizer(monkeypatch):
    """As if the model were on a GPU; torch has it fused on CPUs as well."""
    why = fused_optimizer._why_not_fused
    # torch 2.1 has no fused SGD at all.
    assert 'on cpu' in why('Adam', nn.Linear(2, 2))
    # Rprop is fused in no torch.
    assert 'no fused Rprop' in why('Rprop', nn.Linear(2, 2))
    plain = build_wrapper(nn.Linear(2, 2), type='SGD', **SGD)
    assert not plain.optimizer.defaults.get('fused')

    monkeypatch.setattr(fused_optimizer, '_why_not_fused', lambda *_: None)
    model = nn.Linear(8, 4)
    try:
        wrapper = build_wrapper(model, type='SGD', **SGD)
    except (RuntimeError, TypeError):
        pytest.skip('this torch has no fused SGD on CPUs')
    assert wrapper.optimizer.defaults['fused']
    other = deepcopy(model)
    optimizer = torch.optim.SGD(other.parameters(), **SGD)
    for _ in range(3):
        x = torch.rand(5, 8)
        wrapper.update_params(model(x).square().sum())
        optimizer.zero_grad()
        other(x).square().sum().backward()
        optimizer.step()
    for value, wanted in zip(
        model.parameters(), other.parameters(), strict=True
    ):
        torch.testing.assert_close(value, wanted)
    given = build_wrapper(nn.Linear(2, 2), type='SGD', fused=False, **SGD)
    assert given.optimizer.defaults['fused'] is False


def fast_config(tmp_path, schedule):
    pieces = [
        'models/unimoco_resnet50.py',
        'datasets/imagenet_bs32_unimoco.py',
        f'schedules/{schedule}.py',
        'fast_runtime.py',
    ]
    path = tmp_path / f'{schedule}.py'
    path.write_text(
        f'_base_ = {[str(BASE / piece) for piece in pieces]}\n'
        'optim_wrapper = _base_.fast_optim_wrapper\n'
    )
    return Config.fromfile(path)


@pytest.mark.parametrize(
    'schedule', ['imagenet_sgd_coslr_200e', 'imagenet_adamw_coslr_300e']
)
def test_fast_runtime(tmp_path, schedule):
    """It keeps the schedule's optimizer and default_runtime.py's hooks."""
    cfg = fast_config(tmp_path, schedule)
    wanted = Config.fromfile(BASE / 'schedules' / f'{schedule}.py')
    plain = Config.fromfile(BASE / 'default_runtime.py')
    assert cfg.optim_wrapper.optimizer == wanted.optim_wrapper.optimizer
    assert cfg.optim_wrapper.dtype == 'bfloat16'
    assert cfg.default_hooks.items() >= plain.default_hooks.items()
    assert cfg.custom_hooks[: len(plain.custom_hooks)] == plain.custom_hooks
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)


def _train_wrapped(rank, world_size, options, hook):
    """Three steps of one rank; losses, and what every rank must share."""
    model = build_unimoco()
    if hook:
        apply_hook(model, type='CompileEncodersHook', backend='eager')
    ddp = MMDistributedDataParallel(model, **options)
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    torch.manual_seed(0)
    losses = []
    for views, labels in draw_batches(3):
        share = slice(rank * 4, rank * 4 + 4)
        views = [view[share] for view in views]
        optimizer.zero_grad()
        out = ddp(views, data_samples(labels[share]), mode='loss')
        out['loss'].backward()
        optimizer.step()
        losses.append(out['loss'].item())
    return torch.tensor(losses), model.state_dict()


def test_wrapper_of_fast_runtime(tmp_path):
    """Two ranks, compiled encoders: as mmengine's default wrapper."""
    cfg = Config.fromfile(BASE / 'fast_runtime.py').model_wrapper_cfg
    options = {k: v for k, v in cfg.items() if k != 'type'}
    results = [
        run_ddp(_train_wrapped, 2, tmp_path, *arguments)
        for arguments in ((dict(broadcast_buffers=False), False),)
        + ((options, True),)
    ]
    for (losses, state), (wanted, wanted_state) in zip(*results, strict=True):
        torch.testing.assert_close(losses, wanted)
        for name, value in wanted_state.items():
            torch.testing.assert_close(
                state[name], value, rtol=1e-4, atol=1e-5, msg=name
            )
