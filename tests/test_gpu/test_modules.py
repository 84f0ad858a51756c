"""Momentum encoder, batch shuffle and split batch norm on a device."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from mmunimoco.models import split_batch_norm
from mmunimoco.models.batch_shuffle import ShufflePlan
from mmunimoco.models.momentum_encoder import MomentumEncoder
from mmunimoco.models.split_batch_norm import SplitBatchNorm

LAYOUTS = pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last], ids=str
)


def test_momentum_encoder(device):
    """Five updates equal the formula in float64; BN statistics are its own."""
    encoder = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)
    ).to(device)
    averaged = MomentumEncoder(encoder, momentum=0.1).to(device)
    wanted = None
    for step in range(5):
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(torch.randn(parameter.shape).to(device))
        encoder(torch.randn(4, 3, 8, 8).to(device))
        averaged.update(encoder)
        if step == 0:  # the first update copies
            averaged(torch.randn(4, 3, 8, 8).to(device))
            statistics = averaged.module[1].running_mean.clone()
        queries = [p.detach().double().cpu() for p in encoder.parameters()]
        wanted = queries if step == 0 else wanted
        wanted = [
            0.9 * k + 0.1 * q for k, q in zip(wanted, queries, strict=True)
        ]
    for value, exact in zip(averaged.parameters(), wanted, strict=True):
        assert value.device.type == device.type
        torch.testing.assert_close(
            value.double().cpu(), exact, rtol=1e-5, atol=1e-6
        )
    assert torch.equal(averaged.module[1].running_mean, statistics)
    assert not torch.equal(encoder[1].running_mean, statistics)


@pytest.mark.parametrize('at_once', [False, True])
@LAYOUTS
def test_split_batch_norm(layout, at_once, device, monkeypatch):
    """Output, gradients and running statistics equal float64 on the CPU.

    ``at_once`` is the form that is compiled, here uncompiled.
    """
    monkeypatch.setattr(split_batch_norm, '_is_compiling', lambda: at_once)
    exact = SplitBatchNorm(6, num_splits=4).double()
    nn.init.uniform_(exact.weight, 0.5, 2)
    layer = deepcopy(exact).float().to(device)
    for n in (16, 18):
        x, slope = torch.randn(2, n, 6, 5, 5)
        results = []
        for norm, dtype in ((layer, torch.float32), (exact, torch.float64)):
            where = norm.weight.device
            leaf = x.detach().clone().to(where, dtype)
            leaf = leaf.contiguous(memory_format=layout).requires_grad_()
            out = norm(leaf)
            assert out.is_contiguous(memory_format=layout)
            out.backward(slope.to(where, dtype))
            results.append(
                [out, leaf.grad, norm.weight.grad, norm.bias.grad]
                + [norm.running_mean, norm.running_var]
            )
        for value, wanted in zip(*results, strict=True):
            torch.testing.assert_close(
                value.double().cpu(), wanted, rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_split_batch_norm_in_half_precision(dtype, device, autocast):
    """As under autocast: half precision maps, float32 statistics."""
    autocast(dtype)  # skips where the device lacks the dtype
    layer = SplitBatchNorm(6, num_splits=4).to(device)
    exact = deepcopy(layer).double().cpu()
    x = (3 + 2 * torch.randn(16, 6, 5, 5)).to(dtype)
    out, wanted = layer(x.to(device)), exact(x.double())
    assert out.dtype == dtype and layer.running_mean.dtype == torch.float32
    torch.testing.assert_close(
        out.double().cpu(), wanted, rtol=2e-2, atol=2e-2
    )
    torch.testing.assert_close(
        layer.running_var.double().cpu(), exact.running_var, rtol=1e-3, atol=0
    )


@LAYOUTS
def test_shuffle_and_restore(layout, device):
    plan = ShufflePlan.draw(12, device)
    images = torch.randint(256, (12, 3, 4, 4)).to(device, torch.uint8)
    images = images.contiguous(memory_format=layout)
    shuffled = plan.shuffle(images)
    assert shuffled.device.type == device.type
    assert torch.equal(shuffled, images[plan.permutation.to(device)])
    assert not torch.equal(shuffled, images)
    assert torch.equal(plan.restore(shuffled), images)
