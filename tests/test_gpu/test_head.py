"""The head with each of its options on a device, against Python lists."""

from copy import deepcopy

import loss_references as ref
import pytest
import torch
from float64_losses import LOSSES
from mmpretrain.registry import MODELS
from slow_head import SlowHead
from torch.nn import functional

import mmunimoco  # noqa: F401

DIM = 6
OPTIONS = {
    'published': {},
    'in-batch': dict(in_batch_positives=True),
    'ignore-unlabeled': dict(ignore_unlabeled_keys=True),
    'exclude-own': dict(exclude_own_keys=True),
    'two-temperatures': dict(positive_temperature=0.7),
    'multi-label': dict(multi_label=True, num_classes=3),
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


def draw_labels(n, multi_label=False):
    if multi_label:
        return torch.rand(n, 3) < 0.3
    return torch.randint(3, (n,)).masked_fill(torch.rand(n) < 0.4, -1)


def head_step(head, query, key, labels, indices):
    """Loss and gradient of a CPU batch on the head's device."""
    query, key, labels, indices = (
        x.to(head.queue.device) for x in (query, key, labels, indices)
    )
    query = query.detach().clone().requires_grad_()
    losses = head.loss(query, key, labels, indices)
    # After the queue was written to, as in training.
    losses['loss'].backward()
    return losses, query.grad


@pytest.mark.parametrize('streamed', [True, False], ids=['streamed', 'dense'])
@pytest.mark.parametrize('name', OPTIONS)
def test_six_steps_equal_the_slow_head(name, streamed, device):
    """With a wrap-around, and sample indices that come back."""
    head = build_head(streamed=streamed, **OPTIONS[name])
    slow = SlowHead(deepcopy(head).double(), ref.unicon)
    exact = deepcopy(head).double()
    head = head.to(device)
    for _ in range(6):
        query, key = unit_vectors(7), unit_vectors(7)
        labels = draw_labels(7, head.multi_label)
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
                value.item(), rel=1e-4, abs=1e-6
            ), log_name
        on_cpu = deepcopy(head).cpu()
        slow.check_queues(on_cpu)
        assert torch.equal(on_cpu.label_queue, exact.label_queue)
        if head.exclude_own_keys:
            assert torch.equal(on_cpu.index_queue, exact.index_queue)


@pytest.mark.parametrize(('queue_len', 'batch'), [(1, 3), (5, 7), (64, 20)])
def test_queue_and_pointer_live_on_the_device(queue_len, batch, device):
    head = build_head(queue_len=queue_len, exclude_own_keys=True).to(device)
    newest, pointer = [], 0
    for step in range(5):
        key, labels = unit_vectors(batch), draw_labels(batch)
        indices = torch.arange(batch) + 100 * step
        head_step(head, unit_vectors(batch), key, labels, indices)
        newest += zip(key, labels.tolist(), indices.tolist(), strict=True)
        pointer = (pointer + batch) % queue_len
        assert head.queue_ptr.tolist() == [pointer]
    for buffer in head.buffers():
        assert buffer.device.type == device.type
    assert head.queue.dtype == torch.float32
    places = range(len(newest) - min(queue_len, len(newest)), len(newest))
    for place in places:
        key, label, index = newest[place]
        slot = place % queue_len
        assert torch.equal(head.queue[slot].cpu(), key)
        assert head.label_queue[slot].item() == label
        assert head.index_queue[slot].item() == index


@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str
)
@pytest.mark.parametrize('name', LOSSES)
def test_published_size(name, dtype, device, autocast, record_property):
    """65 536 keys of length 128, half of the samples labeled."""
    n = 256 if device.type == 'cuda' else 4
    head = build_head(feat_dim=128, queue_len=65536, loss=LOSSES[name][0])
    head.label_queue.random_(-1, 50)
    exact = deepcopy(head).double()
    query, key = (unit_vectors(n, 128).to(dtype) for _ in range(2))
    labels = torch.randint(50, (n,)).masked_fill(torch.rand(n) < 0.5, -1)
    with autocast(dtype):
        losses, gradient = head_step(
            head.to(device), query, key, labels, labels
        )
    wanted, wanted_gradient = head_step(
        exact, query.double(), key.double(), labels, labels
    )
    value_error = abs(losses['loss'].item() / wanted['loss'].item() - 1)
    distance = (gradient.double().cpu() - wanted_gradient).norm()
    gradient_error = (distance / wanted_gradient.norm()).item()
    record_property('value_error', f'{value_error:.2e}')
    record_property('gradient_error', f'{gradient_error:.2e}')
    assert value_error <= 1e-5
    # A half precision gradient is rounded, once, when it is returned.
    assert gradient_error <= 1e-5 + torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ('options', 'labels', 'message'),
    [
        (dict(num_classes=3), [0, 3], r'\[0, 3\].*\[-1, 2\]'),
        (dict(num_classes=3), [-2, 1], r'\[-2, 1\]'),
        ({}, [-7, 1], 'num_classes - 1'),
    ],
)
def test_wrong_labels_are_named(options, labels, message, device):
    head = build_head(**options).to(device)
    before = head.queue.clone()
    query, key = unit_vectors(2), unit_vectors(2)
    with pytest.raises(ValueError, match=message):
        head_step(head, query, key, torch.tensor(labels), torch.arange(2))
    assert torch.equal(head.queue, before)
