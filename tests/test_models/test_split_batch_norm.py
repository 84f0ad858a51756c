import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from ddp_helpers import run_ddp
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import constant_init
from mmengine.model.efficient_conv_bn_eval import (
    turn_on_efficient_conv_bn_eval,
)
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from torch import nn

from mmunimoco.models import split_batch_norm
from mmunimoco.models.split_batch_norm import SplitBatchNorm

NORM = dict(type='SplitBatchNorm', num_splits=2)


def reference(x, groups, layer):
    """Per-group batch_norm in a loop, each group with statistics of its own.

    Returns the output and the means of the groups' running statistics.
    """
    outs, means, variances = [], [], []
    start = 0
    factor = layer.momentum
    if factor is None:
        factor = 1 / (int(layer.num_batches_tracked) + 1)
    for size in groups:
        chunk = x[start : start + size]
        start += size
        mean, var = layer.running_mean.clone(), layer.running_var.clone()
        outs.append(
            F.batch_norm(
                chunk,
                mean,
                var,
                layer.weight,
                layer.bias,
                True,
                factor,
                layer.eps,
            )
        )
        means.append(mean)
        variances.append(var)
    count = len(groups)
    return torch.cat(outs), sum(means) / count, sum(variances) / count


def a_layer(channels, num_splits, **kwargs):
    layer = SplitBatchNorm(channels, num_splits, **kwargs).double()
    torch.manual_seed(1)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    return layer


@pytest.fixture(params=[False, True], ids=['in turn', 'at once'])
def at_once(request, monkeypatch):
    """Take the form for torch.compile, without compiling it."""
    monkeypatch.setattr(
        split_batch_norm, '_is_compiling', lambda: request.param
    )
    return request.param


@pytest.mark.parametrize('momentum', [0.1, 0.7, None])
@pytest.mark.parametrize(
    'shape, num_splits, groups',
    [
        ((8, 3, 4, 4), 4, [2, 2, 2, 2]),
        ((8, 3, 4, 4), 1, [8]),
        ((7, 3, 2, 5), 3, [3, 2, 2]),
        ((4, 3, 2, 2), 4, [1, 1, 1, 1]),
        ((12, 5), 3, [4, 4, 4]),
        ((11, 5), 4, [3, 3, 3, 2]),
        ((6, 2, 7), 2, [3, 3]),
        ((6, 2, 2, 3, 2), 3, [2, 2, 2]),
    ],
)
def test_each_group_has_its_own_statistics(
    shape, num_splits, groups, momentum, at_once
):
    layer = a_layer(shape[1], num_splits, momentum=momentum)
    for step in range(3):  # the third cumulative average differs from EMA
        x = 3 + 2 * torch.randn(shape, dtype=torch.float64)
        weight = torch.randn(shape, dtype=torch.float64)
        x.requires_grad_()
        expected, mean, var = reference(x, groups, copy.deepcopy(layer))
        expected_grad = torch.autograd.grad((expected * weight).sum(), x)
        out = layer(x)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_var, var)
        assert int(layer.num_batches_tracked) == step + 1
        grad = torch.autograd.grad((out * weight).sum(), x)
        torch.testing.assert_close(grad, expected_grad)


def test_gradients_of_scale_and_shift(at_once):
    layer = a_layer(3, 2)
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    weight = torch.randn_like(x)
    twin = copy.deepcopy(layer)
    out, _, _ = reference(x, [3, 3], twin)
    (out * weight).sum().backward()
    (layer(x) * weight).sum().backward()
    torch.testing.assert_close(layer.weight.grad, twin.weight.grad)
    torch.testing.assert_close(layer.bias.grad, twin.bias.grad)


def test_running_statistics_are_the_mean_of_what_devices_would_hold(at_once):
    devices = [nn.BatchNorm2d(3) for _ in range(4)]
    layer = SplitBatchNorm(3, num_splits=4)
    for _ in range(5):
        x = torch.randn(8, 3, 2, 2) * 3 + 1
        out = layer(x)
        chunks = [d(c) for d, c in zip(devices, x.chunk(4), strict=True)]
        torch.testing.assert_close(out, torch.cat(chunks))
    for name in ('running_mean', 'running_var'):
        held = torch.stack([getattr(d, name) for d in devices])
        torch.testing.assert_close(getattr(layer, name), held.mean(0))


def batch_norm_on_rank(rank, world_size, x):
    layer = nn.BatchNorm2d(x.shape[1])
    out = layer(x.chunk(world_size)[rank])
    dist.all_reduce(layer.running_var)
    return out, layer.running_var / world_size


def test_one_process_normalises_as_two_do(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 4)
    layer = SplitBatchNorm(3, num_splits=2)
    answers = run_ddp(batch_norm_on_rank, 2, tmp_path, x)
    torch.testing.assert_close(layer(x), torch.cat([o for o, _ in answers]))
    torch.testing.assert_close(layer.running_var, answers[0][1])


def test_evaluation_is_plain_batch_norm():
    layer = a_layer(3, 4).eval()
    plain = nn.BatchNorm2d(3).double()
    plain.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(3, 3, 2, 2, dtype=torch.float64)  # fewer than groups
    assert torch.equal(layer(x), plain.eval()(x))
    assert int(layer.num_batches_tracked) == 0


def test_without_running_statistics(at_once):
    layer = SplitBatchNorm(3, num_splits=2, track_running_stats=False)
    assert not list(layer.buffers())
    x = torch.randn(4, 3, 2, 2)
    halves = [F.batch_norm(c, None, None, training=True) for c in x.chunk(2)]
    torch.testing.assert_close(layer(x), torch.cat(halves))
    whole = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(layer.eval()(x), whole)


def test_without_affine_and_in_channels_last(at_once):
    layer = SplitBatchNorm(3, num_splits=2, affine=False)
    x = torch.randn(4, 3, 2, 2)
    out = layer(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    halves = [F.batch_norm(c, None, None, training=True) for c in x.chunk(2)]
    torch.testing.assert_close(out, torch.cat(halves))


def test_half_precision_input_keeps_float32_statistics(at_once):
    layer = SplitBatchNorm(3, num_splits=2)
    x = torch.randn(4, 3, 8, 8)
    out = layer(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert layer.running_mean.dtype == torch.float32
    twin = SplitBatchNorm(3, num_splits=2)
    torch.testing.assert_close(out.float(), twin(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize('shape', [(6, 2, 2, 3), (4, 3)])
def test_gradients_of_all_groups_at_once(shape):
    layer = a_layer(shape[1], 2)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    parameters = (layer.weight, layer.bias)
    assert torch.autograd.gradcheck(
        lambda x, *_: layer._normalize_at_once(x), (x, *parameters)
    )


def test_half_precision_statistics_are_those_of_float32(at_once):
    """A mean of 40 and a deviation of 1, of which bfloat16 keeps 3 bits."""
    layer = SplitBatchNorm(3, num_splits=2)
    x = (40 + torch.randn(8, 3, 16, 16)).bfloat16()
    layer(x)
    twin = SplitBatchNorm(3, num_splits=2)
    twin(x.float())
    for name in ('running_mean', 'running_var'):
        torch.testing.assert_close(
            getattr(layer, name), getattr(twin, name), rtol=1e-5, atol=1e-5
        )


@pytest.mark.skipif(
    not hasattr(torch.compiler, 'is_compiling'),
    reason='this torch cannot tell that it compiles, so the loop is compiled',
)
@pytest.mark.parametrize(
    'backend',
    ['aot_eager', pytest.param('inductor', marks=pytest.mark.slow)],
)
def test_compiled_layer_is_the_same(backend):
    """Values, gradients and running statistics, from one graph."""
    layer = a_layer(3, 4).float()
    twin = copy.deepcopy(layer)
    layer._normalize_in_turn = None  # not to be called
    compiled = torch.compile(layer.forward, fullgraph=True, backend=backend)
    x = torch.randn(8, 3, 4, 4).to(memory_format=torch.channels_last)
    results = []
    for function, module in ((compiled, layer), (twin, twin)):
        x = x.detach().requires_grad_()
        out = function(x)
        out.sin().sum().backward()
        grads = [x.grad, module.weight.grad, module.bias.grad]
        results.append([out, *grads, *module.buffers()])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert results[0][0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    'shape, message',
    [
        ((3, 2, 4, 4), 'cannot split 3 samples into num_splits=4'),
        ((7, 2), 'batch size of at least 8'),
        ((4, 2, 1, 1), 'single value for each channel'),
        ((8,), r'expects \(N, C, ...\)'),
    ],
)
def test_batches_that_cannot_be_split_are_named(shape, message):
    layer = SplitBatchNorm(2, num_splits=4)
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(shape))
    assert int(layer.num_batches_tracked) == 0


@pytest.mark.parametrize('num_splits', [0, -1, 2.0, '2'])
def test_wrong_num_splits_is_named(num_splits):
    with pytest.raises(ValueError, match='`num_splits`'):
        SplitBatchNorm(2, num_splits)


def test_is_built_by_mmcv_under_the_names_of_bn():
    name, layer = build_norm_layer(
        dict(type='SplitBatchNorm', num_splits=8, requires_grad=False), 4, 1
    )
    assert name == 'bn1'
    assert isinstance(layer, SplitBatchNorm) and layer.num_splits == 8
    assert not layer.weight.requires_grad
    conv = ConvModule(3, 4, 3, norm_cfg=NORM)
    assert conv.norm_name == 'bn' and conv.conv.bias is None


def resnet(norm, **kwargs):
    return MODELS.build(
        dict(
            type='ResNet',
            depth=18,
            base_channels=8,
            norm_cfg=norm,
            **kwargs,
        )
    )


def test_mmpretrain_resnet_has_the_keys_and_outputs_of_bn():
    split, plain = resnet(NORM), resnet(dict(type='BN'))
    assert any(isinstance(m, SplitBatchNorm) for m in split.modules())
    plain.load_state_dict(split.state_dict(), strict=True)
    x = torch.randn(4, 3, 32, 32)
    plain.eval(), split.eval()
    torch.testing.assert_close(split(x), plain(x))
    plain.train(), split.train()
    halves = [plain(c)[0] for c in x.chunk(2)]
    torch.testing.assert_close(split(x)[0], torch.cat(halves))


def test_mmpretrain_rules_for_bn_hold():
    net = resnet(NORM, frozen_stages=1, norm_eval=True)
    net.init_weights()
    net.train()
    norms = [m for m in net.modules() if isinstance(m, SplitBatchNorm)]
    assert norms and not any(m.training for m in norms)
    assert not any(p.requires_grad for p in net.layer1.parameters())

    net = resnet(NORM, zero_init_residual=True)
    for m in net.modules():
        if isinstance(m, SplitBatchNorm):
            constant_init(m, 5)
    net.init_weights()  # Constant of layer '_BatchNorm'
    assert net.bn1.weight.unique().tolist() == [1]
    assert net.layer1[0].bn2.weight.unique().tolist() == [0]

    wrapper = build_optim_wrapper(
        net,
        dict(
            optimizer=dict(type='SGD', lr=0.1, weight_decay=1e-4),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
    )
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    assert decay[id(net.bn1.weight)] == decay[id(net.bn1.bias)] == 0
    assert decay[id(net.conv1.weight)] == 1e-4


def test_mmpretrain_neck_takes_it_for_vectors():
    neck = MODELS.build(
        dict(
            type='NonLinearNeck',
            in_channels=4,
            hid_channels=6,
            out_channels=5,
            with_avg_pool=True,
            with_last_bn_affine=False,
            norm_cfg=NORM,
        )
    )
    neck.init_weights()
    (out,) = neck((torch.randn(4, 4, 2, 2),))
    assert out.shape == (4, 5)
    # The last layer normalises each half of the batch.
    torch.testing.assert_close(
        out.view(2, 2, 5).mean(1), torch.zeros(2, 5), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize('frozen', [False, True])
def test_efficient_conv_bn_eval_of_mmengine(frozen):
    """It traces by torch.fx, and fuses the layers that are in evaluation."""
    model = nn.Sequential(resnet(NORM, norm_eval=frozen))
    copied = copy.deepcopy(model)
    turn_on_efficient_conv_bn_eval(copied, '0')
    x = torch.randn(6, 3, 32, 32)
    for training in (True, False):
        outs = [m.train(training)(x)[-1] for m in (model, copied)]
        torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    for wanted, buffer in zip(model.buffers(), copied.buffers(), strict=True):
        assert torch.equal(wanted, buffer)


def test_scripted_and_traced_layers_evaluate():
    layer = a_layer(3, 2, eps=0.1).eval()
    x = torch.randn(5, 3, 4, 4).double()
    scripted = torch.jit.script(layer)
    for graph in (scripted, torch.jit.trace(layer, x)):
        torch.testing.assert_close(graph(x), layer(x))
    with pytest.raises(torch.jit.Error, match='only evaluates'):
        scripted.train()(x)
    bare = SplitBatchNorm(3, 2, affine=False, track_running_stats=False).eval()
    x = x.float()
    torch.testing.assert_close(torch.jit.script(bare)(x), bare(x))
