"""The head with each of its options on a device."""

from copy import deepcopy

import loss_references as ref
import pytest
import torch
from float64_losses import LOSSES
from mmpretrain.registry import MODELS
from slow_head import SlowHead
from torch.nn import functional

import mmunimoco  # noqa: F401
from mmunimoco.models.labels import SampleLabels

DIM = 6
OPTIONS = {
    'published': {},
    'in-batch': dict(in_batch_positives=True),
    'ignore-unlabeled': dict(ignore_unlabeled_keys=True),
    'exclude-own': dict(exclude_own_keys=True),
    'two-temperatures': dict(positive_temperature=0.7),
    'multi-label': dict(multi_label=True, num_classes=3),
    'slow-start': dict(
        label_warmup=4,
        max_positives=2,
        propagate_labels=dict(k=3, threshold=0.6, use='positive'),
        exclude_own_keys=True,
    ),
    'everything': dict(
        in_batch_positives=True,
        ignore_unlabeled_keys=True,
        exclude_own_keys=True,
        positive_temperature=0.5,
        multi_label=True,
        num_classes=3,
    ),
}


def build_head(**options):
    options = dict(feat_dim=DIM, queue_len=20, temperature=0.3) | options
    return MODELS.build(dict(type='UniMoCoHead', **options))


def unit_vectors(n, dim=DIM):
    return functional.normalize(torch.randn(n, dim), dim=1)


def head_step(head, query, key, labels, indices=None):
    """Loss, log values and gradient of a CPU batch on the head's device."""
    where = head.queue.device
    query = query.detach().clone().to(where).requires_grad_()
    if indices is not None:
        indices = indices.to(where)
    labels = SampleLabels(labels.to(where), indices)
    losses = head.loss(query, key.to(where), labels)
    # After the queue was written to, as in training.
    losses['loss'].backward()
    return losses, query.grad


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('name', OPTIONS)
def test_six_steps_equal_the_slow_head(name, fused, device):
    """With a wrap-around, and with sample indices that come back."""
    if fused:
        pytest.importorskip('triton', minversion='3.0')
    head = build_head(fused=fused, **OPTIONS[name])
    slow = SlowHead(deepcopy(head).double(), ref.unicon)
    exact = deepcopy(head).double()
    head = head.to(device)
    for _ in range(6):
        query, key = unit_vectors(7), unit_vectors(7)
        labels = torch.randint(3, (7,)).masked_fill(torch.rand(7) < 0.4, -1)
        if head.multi_label:
            labels = torch.rand(7, 3) < 0.3
        indices = torch.randint(15, (7,))
        losses, gradient = head_step(head, query, key, labels, indices)
        assert all(x.device.type == device.type for x in losses.values())
        wanted = slow.loss(query.double(), key.double(), labels, indices)
        assert losses['loss'].item() == pytest.approx(wanted, rel=1e-5)
        exact_losses, wanted_gradient = head_step(
            exact, query.double(), key.double(), labels, indices
        )
        torch.testing.assert_close(
            gradient.double().cpu(), wanted_gradient, rtol=1e-4, atol=1e-6
        )
        for log_name, value in exact_losses.items():
            assert losses[log_name].item() == pytest.approx(
                value.item(), rel=1e-4, abs=1e-6, nan_ok=True
            ), log_name
        slow.check_queues(deepcopy(head).cpu())
    assert all(x.device.type == device.type for x in head.buffers())


@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str
)
@pytest.mark.parametrize('name', LOSSES)
def test_published_size(name, dtype, device, autocast, record_property):
    """65 536 keys of length 128, half of the samples labeled."""
    n = 4
    if device.type == 'cuda':  # the reference takes seconds for 256
        n = 256 if dtype == torch.float32 else 96
    head = build_head(feat_dim=128, queue_len=65536, loss=LOSSES[name][0])
    head.label_queue.random_(-1, 50)
    exact = deepcopy(head).double()
    query, key = (unit_vectors(n, 128).to(dtype) for _ in range(2))
    labels = torch.randint(50, (n,)).masked_fill(torch.rand(n) < 0.5, -1)
    with autocast(dtype):
        losses, gradient = head_step(head.to(device), query, key, labels)
    wanted, wanted_gradient = head_step(
        exact, query.double(), key.double(), labels
    )
    value_error = abs(losses['loss'].item() / wanted['loss'].item() - 1)
    distance = (gradient.double().cpu() - wanted_gradient).norm()
    gradient_error = (distance / wanted_gradient.norm()).item()
    record_property('value_error', f'{value_error:.2e}')
    record_property('gradient_error', f'{gradient_error:.2e}')
    assert value_error <= 1e-5
    # A half precision gradient is rounded once, when it is returned.
    assert gradient_error <= 1e-5 + torch.finfo(dtype).eps
