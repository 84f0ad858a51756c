"""Each option of a step: what it turns on, and that results stay."""

import logging
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from ddp_helpers import run_ddp
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
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

from mmunimoco.engine import StepOptionsHook, step_options

FAST_RUNTIME = Path(__file__).parents[2] / 'configs/_base_/fast_runtime.py'


def apply(model, **options):
    """The model after the hook, which may be a new wrapper of it."""
    hook = HOOKS.build(dict(type='StepOptionsHook', **options))
    runner = SimpleNamespace(model=model)
    hook.before_run(runner)
    return runner.model


def train(model, steps=3):
    """Losses of some steps."""
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    return torch.tensor(
        [train_step(model, optimizer, *b) for b in draw_batches(steps)]
    )


def assert_same_training(model, other):
    torch.testing.assert_close(train(other), train(model))
    state, expected = other.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            state[name], value, rtol=1e-4, atol=1e-5, msg=name
        )


def vit_unimoco():
    arch = dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
    )
    vit = dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=8)
    neck = dict(
        type='MoCoV2Neck',
        in_channels=16,
        hid_channels=32,
        out_channels=DIM,
        with_avg_pool=False,
    )
    return build_unimoco(options=dict(backbone=vit, neck=neck))


def test_no_option_changes_nothing():
    model = build_unimoco()
    forward = model.backbone.forward
    assert apply(model) is model and model.backbone.forward == forward


# channels_last


def test_channels_last_changes_the_layout_but_not_the_training():
    model = build_unimoco()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # made before
    changed = apply(deepcopy(model), channels_last=True)
    weight = changed.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert_same_training(deepcopy(model), changed)
    apply(model, channels_last=True)
    before = model.backbone.conv1.weight.detach().clone()
    ((views, labels),) = draw_batches(1)
    train_step(model, optimizer, views, labels)
    assert not torch.equal(model.backbone.conv1.weight, before)


def test_channels_last_refuses_operators_of_mmcv():
    pytest.importorskip('mmcv._ext')
    from mmcv.ops import RoIAlign

    roi = RoIAlign(output_size=7, sampling_ratio=1)
    with pytest.raises(ValueError, match="RoIAlign .* 'roi_layer'"):
        apply(nn.ModuleDict(dict(roi_layer=roi)), channels_last=True)


# compile and gradient_checkpointing


def test_compiled_encoders():
    """Same names, same training, same features without gradient."""
    model, graphs = build_unimoco(), []

    def backend(graph, inputs):
        graphs.append(torch.is_grad_enabled())
        return graph.forward

    compiled = apply(deepcopy(model), compile=dict(backend=backend))
    assert_same_training(model, compiled)
    # Of query and key encoder, each backbone and neck.
    assert graphs.count(True) >= 2 and graphs.count(False) >= 2
    model.eval(), compiled.eval()
    x = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(
        compiled.extract_feat(x)[0], model.extract_feat(x)[0]
    )


def test_the_loop_over_the_queue_is_not_compiled():
    head = MODELS.build(dict(type='UniMoCoHead', feat_dim=4, queue_len=10))

    def refuse(*_):
        raise AssertionError('compiled')

    step_options.compile_head(head, backend=refuse)
    query, key = torch.nn.functional.normalize(torch.rand(2, 3, 4), dim=2)
    assert head.loss(query, key, torch.tensor([0, 1, -1]))['loss'] > 0


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


@pytest.mark.parametrize('build', [build_unimoco, vit_unimoco])
def test_checkpointed_gradients(build):
    """Less memory, and batch statistics are updated once."""
    less = kept_bytes(apply(build(), gradient_checkpointing=True))
    assert less < 0.7 * kept_bytes(build())
    assert_same_training(build(), apply(build(), gradient_checkpointing=True))


def test_checkpointed_and_compiled():
    both = apply(
        build_unimoco(),
        gradient_checkpointing=['BasicBlock'],
        compile=dict(backend='eager'),
    )
    assert_same_training(build_unimoco(), both)


def test_options_name_models_they_do_not_fit():
    resnet = MODELS.build(dict(type='ResNet', depth=18))
    with pytest.raises(ValueError, match='a ResNet'):
        apply(resnet, compile=True)
    model = SimpleNamespace(backbone=nn.Linear(2, 2))
    with pytest.raises(ValueError, match='a Linear.*gradient_checkpointing'):
        apply(model, gradient_checkpointing=True)
    with pytest.raises(ValueError, match='none of Bottleneck in'):
        apply(build_unimoco(), gradient_checkpointing=['Bottleneck'])
    with pytest.raises(ValueError, match='list of class names'):
        StepOptionsHook(gradient_checkpointing='Bottleneck')
    with pytest.raises(ValueError, match="'cuda-graphs' or a dict"):
        StepOptionsHook(compile='cpu')


@pytest.mark.parametrize('value', ['gpu', 'cuda-graphs'])
def test_compile_for_gpus_does_nothing_on_a_cpu(value):
    model = build_unimoco()
    forward = model.backbone.forward
    runner = SimpleNamespace(model=model, logger=logging.getLogger('mmengine'))
    StepOptionsHook(compile=value).before_run(runner)
    assert model.backbone.forward == forward


@pytest.mark.parametrize('on_gpu', [True, False])
def test_cuda_graphs_are_told_where_a_step_begins(monkeypatch, on_gpu):
    """Their results are overwritten in the next step."""
    begun, modes = [], []

    def compile_(function, mode='default'):
        modes.append(mode)
        return function

    monkeypatch.setattr(step_options, '_is_on_gpu', lambda _: on_gpu)
    monkeypatch.setattr(torch, 'compile', compile_)
    monkeypatch.setattr(
        torch.compiler,
        'cudagraph_mark_step_begin',
        lambda: begun.append(1),
        raising=False,  # torch before 2.2
    )
    runner = SimpleNamespace(
        model=build_unimoco(), logger=logging.getLogger('mmengine')
    )
    hook = StepOptionsHook(compile='cuda-graphs')
    hook.before_run(runner)
    hook.before_train_iter(runner, 0)
    # Backbones, necks and head.
    assert modes == ['reduce-overhead'] * 5 * on_gpu
    assert len(begun) == on_gpu


# Several processes


def _errors_of_first_gradients(rank, world_size):
    """Relative error of each gradient of the first step."""

    def wrap(cfg, module):
        return MMDistributedDataParallel(module, broadcast_buffers=False)

    model = build_unimoco()
    model.shuffle_bn = False  # or the twin would draw another permutation
    runner = SimpleNamespace(model=wrap(None, model), cfg={}, wrap_model=wrap)
    StepOptionsHook(channels_last=True).before_run(runner)
    twin = deepcopy(model)
    torch.manual_seed(rank)
    views = list(torch.rand(2, 4, 3, 28, 28))
    samples = data_samples(torch.arange(4))
    runner.model(views, samples, mode='loss')['loss'].backward()
    twin.loss(views, samples)['loss'].backward()
    errors = []
    for ours, theirs in zip(
        model.parameters(), twin.parameters(), strict=True
    ):
        if theirs.grad is not None:
            mean = theirs.grad.contiguous() / world_size
            dist.all_reduce(mean)
            errors.append(((ours.grad - mean).abs() / mean.abs().max()).max())
    return [float(error) for error in errors]


def _train_wrapped(rank, compiled, **wrapper):
    """Losses of three steps of one rank, and the weights after them."""
    model = build_unimoco()
    if compiled:
        apply(model, compile=dict(backend='eager'))
    ddp = MMDistributedDataParallel(model, **wrapper)
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
        losses.append(out['loss'].detach())
    return dict(model.state_dict(), losses=torch.stack(losses))


def _wrapped(rank, world_size, wrapper):
    return (
        _errors_of_first_gradients(rank, world_size),
        _train_wrapped(rank, False, broadcast_buffers=False),
        _train_wrapped(rank, True, **wrapper),
    )


def test_options_of_several_processes(tmp_path):
    """DDP's buckets, made for the layout before, and compiled encoders."""
    wrapper = Config.fromfile(FAST_RUNTIME).model_wrapper_cfg.to_dict()
    assert wrapper.pop('type') == 'MMDistributedDataParallel'
    results = run_ddp(_wrapped, 2, tmp_path, wrapper)
    for errors, expected, compiled in results:
        assert len(errors) > 20
        assert max(errors) < 1e-5
        for name, value in expected.items():
            torch.testing.assert_close(
                compiled[name], value, rtol=1e-4, atol=1e-5, msg=name
            )


# The fused optimizer


def build_wrapper(model, wrapper=None, **optimizer):
    return build_optim_wrapper(
        model,
        dict(
            wrapper or dict(type='OptimWrapper'),
            constructor='FusedOptimWrapperConstructor',
            optimizer=optimizer,
        ),
    )


def test_fused_optimizer(monkeypatch):
    """As if the model were on a GPU; torch has it fused on CPUs as well."""
    why_not = step_options._why_not_fused
    # torch 2.1 has no fused SGD; Rprop is fused in no release.
    assert 'on a CPU' in why_not(dict(type='Adam'), nn.Linear(2, 2))
    assert 'no fused Rprop' in why_not(dict(type='Rprop'), nn.Linear(2, 2))
    plain = build_wrapper(nn.Linear(2, 2), type='SGD', **SGD)
    assert not plain.optimizer.defaults.get('fused')

    monkeypatch.setattr(step_options, '_why_not_fused', lambda *_: None)
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
    for value, expected in zip(
        model.parameters(), other.parameters(), strict=True
    ):
        torch.testing.assert_close(value, expected)
    given = build_wrapper(nn.Linear(2, 2), type='SGD', fused=False, **SGD)
    assert given.optimizer.defaults['fused'] is False


@pytest.mark.parametrize('skipped', [0, 1])
def test_a_skipped_step_leaves_nothing_in_fused_sgd(monkeypatch, skipped):
    """Torch takes its first momentum from memory that is not written."""
    model = nn.Linear(8, 8)
    monkeypatch.setattr(step_options, '_is_on_gpu', lambda _: True)
    try:
        wrapper = build_wrapper(model, type='SGD', **SGD)
    except RuntimeError:
        pytest.skip('this torch has no fused SGD on CPUs')
    if 'fused' not in wrapper.optimizer.defaults:
        pytest.skip('this torch has no fused SGD')
    other = deepcopy(model)
    expected = torch.optim.SGD(other.parameters(), **SGD)
    # Whatever memory held before.
    monkeypatch.setattr(
        torch, 'empty_like', lambda x, **_: torch.full_like(x, 1e30)
    )
    for step in range(3):
        x = torch.rand(5, 8)
        for network, optimizer in (
            (model, wrapper.optimizer),
            (other, expected),
        ):
            optimizer.zero_grad()
            network(x).square().sum().backward()
        if step < skipped:  # as GradientGuard and GradScaler do
            wrapper.optimizer.grad_scale = None
            wrapper.optimizer.found_inf = torch.ones(())
        else:
            expected.step()
        wrapper.optimizer.step()
        wrapper.optimizer.found_inf = torch.zeros(())
    for value, wanted in zip(
        model.parameters(), other.parameters(), strict=True
    ):
        torch.testing.assert_close(value, wanted)


def test_sgd_with_dampening_is_not_fused(monkeypatch):
    monkeypatch.setattr(step_options, '_is_on_gpu', lambda _: True)
    options = dict(type='SGD', lr=0.1, momentum=0.9, dampening=0.1)
    wrapper = build_wrapper(nn.Linear(2, 2), **options)
    assert not wrapper.optimizer.defaults.get('fused')


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_mixed_precision_becomes_float32_on_a_cpu(dtype):
    amp = dict(type='AmpOptimWrapper', dtype=dtype, loss_scale='dynamic')
    amp['use_fsdp'] = False
    wrapper = build_wrapper(nn.Linear(2, 2), amp, type='SGD', lr=0.1)
    assert type(wrapper) is OptimWrapper
