"""Value and gradient of the losses on a logits matrix, against float64."""

import pytest
import torch
from float64_losses import LOSSES, value_and_gradient
from mmpretrain.registry import MODELS
from torch.nn import functional

import mmunimoco  # noqa: F401

# As GradScaler: keeps the small gradients of float16 normal numbers.
SCALE = 2.0**10
# Largest relative error of the gradient in the norm: it is rounded once, to
# the dtype of the logits.
GRADIENT_ERROR = {
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 5e-3,
}


@pytest.mark.parametrize('dtype', GRADIENT_ERROR, ids=str)
@pytest.mark.parametrize('name', LOSSES)
def test_dense_form(name, dtype, device, autocast, record_property):
    config, formula = LOSSES[name]
    loss, n = MODELS.build(config), 32 if device.type == 'cuda' else 4
    worst = [0.0, 0.0]
    for queue_len in (1, 1000, 65536):
        query = functional.normalize(torch.randn(n, 64).double(), dim=1)
        keys = functional.normalize(torch.randn(queue_len + 1, 64).double())
        positives = torch.rand(n, queue_len + 1) < 1e-2
        positives[:, 0] = True
        for tau in (1.0, 0.07, 0.01):
            logits = (query @ keys.T / tau).to(dtype)
            wanted, wanted_gradient = value_and_gradient(
                formula, logits, lambda x: x, positives
            )
            leaf = logits.to(device).requires_grad_()
            with autocast(dtype):
                value = loss(leaf, positives.to(device))
            assert value.dtype == torch.float32
            assert value.device.type == device.type
            (gradient,) = torch.autograd.grad(value * SCALE, leaf)
            gradient = gradient.double().cpu()
            assert gradient.isfinite().all()
            # Below its smallest normal number a dtype is inaccurate.
            lost = torch.finfo(dtype).tiny * gradient.numel() ** 0.5
            distance = (gradient - SCALE * wanted_gradient).norm() - lost
            found = (
                abs(value.item() / wanted.item() - 1),
                (distance / (SCALE * wanted_gradient).norm()).item(),
            )
            worst = [max(pair) for pair in zip(worst, found, strict=True)]
    record_property('value_error', f'{worst[0]:.2e}')
    record_property('gradient_error', f'{worst[1]:.2e}')
    assert worst[0] <= 1e-5
    assert worst[1] <= GRADIENT_ERROR[dtype]


def test_unicon_keeps_small_and_large_values(device):
    # exp(200) overflows float32, and 1 + 1e-20 is 1.
    positives = torch.tensor([[True, False]], device=device)
    loss = MODELS.build(dict(type='UniConLoss'))
    large = loss(torch.tensor([[-100.0, 100.0]], device=device), positives)
    small = loss(torch.tensor([[20.0, -26.0]], device=device), positives)
    assert large.item() == pytest.approx(200.0)
    assert small.item() == pytest.approx(1.0530617357553813e-20, rel=1e-5)
