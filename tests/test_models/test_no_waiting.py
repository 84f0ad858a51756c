"""A step asks nothing of its device: tried on one that cannot answer.

Tensors on the meta device have no values. To read one, to pick entries by a
mask, to copy one to the CPU: all that would make the host wait for a GPU
raises there.
"""

import contextlib

import pytest
import torch
import torch.distributed as dist
from ddp_helpers import run_ddp
from mmengine.optim import OptimWrapper
from small_unimoco import (
    SGD,
    build_unimoco,
    data_samples,
    draw_batches,
    trained_parameters,
)
from step_options import HEADS
from torch.utils._python_dispatch import TorchDispatchMode

from mmunimoco.models import batch_shuffle, collectives, unimoco_head
from mmunimoco.models import labels as label_rules
from mmunimoco.models.labels import SampleLabels

META = torch.device('meta')
SPLIT = dict(type='SplitBatchNorm', num_splits=4)


class _CopiesToDevice(TorchDispatchMode):
    """Counts tensors copied from the CPU to the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (
            torch.ops.aten._to_copy,
            torch.ops.aten.copy_,
        ):
            source = args[1] if 'copy_' in str(func)[-16:] else args[0]
            # A number, such as the learning rate, goes along in the call.
            moved = source.device.type == 'cpu' and out.device == META
            self.count += moved and source.dim() > 0
        return out


def on_meta(model, monkeypatch):
    """Move a model that has done a step, and let it run there."""
    # Autocast knows no such device.
    monkeypatch.setattr(
        torch, 'autocast', lambda *_, **__: contextlib.nullcontext()
    )
    return model.to(META)


def step(model, wrapper, device):
    """A training step after the data preprocessor, which keeps labels."""
    ((views, labels),) = draw_batches(1)
    views = [view.to(device) for view in views]
    losses = model(views, data_samples(labels), mode='loss')
    loss, log = model.parse_losses(losses)
    wrapper.update_params(loss)
    return log


def build(norm, head):
    head = dict(num_classes=3) | head
    model = build_unimoco(norm, **head)
    parameters = trained_parameters(model)
    wrapper = OptimWrapper(torch.optim.SGD(parameters, **SGD))
    # The momentum encoder reads its counter once, in the first step.
    log = step(model, wrapper, 'cpu')
    return model, log


@pytest.mark.parametrize(
    ('head', 'norm'), [*((name, None) for name in HEADS), ('published', SPLIT)]
)
def test_step_reads_nothing_from_the_device(head, norm, monkeypatch):
    model, wanted = build(norm, HEADS[head])
    model = on_meta(model, monkeypatch)
    parameters = trained_parameters(model)
    wrapper = OptimWrapper(torch.optim.SGD(parameters, **SGD))
    uploads = []

    def counted(x, device):
        uploads.append(x)
        return x.to(device)

    monkeypatch.setattr(unimoco_head, 'upload', counted)
    monkeypatch.setattr(label_rules, 'upload', counted)
    monkeypatch.setattr(batch_shuffle, 'upload', counted)
    with _CopiesToDevice() as copies:
        log = step(model, wrapper, META)
    # The two views of `step` itself, and what does not make the host wait.
    assert copies.count == 2 + len(uploads)
    assert set(log) == set(wanted)
    assert all(value.device == META for value in log.values())


def test_this_device_tells_what_waits(monkeypatch):
    model = on_meta(build(None, {})[0], monkeypatch)
    query = torch.zeros(2, 16, device=META)
    with pytest.raises((RuntimeError, NotImplementedError)):
        model.head.loss(query, query, torch.zeros(2, device=META).long())


def test_wrong_labels_still_raise(monkeypatch):
    model = on_meta(build(None, {})[0], monkeypatch)
    views = list(torch.zeros(2, 2, 3, 32, 32, device=META))
    samples = data_samples(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r'\[0, 3\].*\[-1, 2\]'):
        model.loss(views, samples)


def _exchange_beside_nccl(rank, world_size):
    """What a group of nccl alone would do: sees what travels, and where."""
    collectives._backends = lambda: dict(cuda='nccl')
    groups, original = [], dist.all_gather

    def seen(output, x, group=None):
        groups.append((x.device.type, group))
        return original(output, x, group=group)

    dist.all_gather = seen
    found = [collectives.exchange_integers([rank, 7 + i]) for i in range(2)]
    (device, group), (_, again) = groups
    return found, device, dist.get_backend(group), again is group


def test_batch_sizes_travel_beside_nccl(tmp_path):
    for rank in run_ddp(_exchange_beside_nccl, 2, tmp_path):
        found, device, backend, reused = rank
        assert found == [[[0, 7], [1, 7]], [[0, 8], [1, 8]]]
        assert (device, backend, reused) == ('cpu', 'gloo', True)


class _NewTensors(TorchDispatchMode):
    """Notes the sizes of all tensors made."""

    def __init__(self):
        super().__init__()
        self.elements = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {_place(x) for x in args if isinstance(x, torch.Tensor)}
        for x in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(x, torch.Tensor) and _place(x) not in given:
                self.elements.append(x.numel())
        return out


def _place(x):
    return x.untyped_storage().data_ptr()


@pytest.mark.parametrize('head', ['published', 'exclude-own', 'multi-label'])
def test_queues_are_written_in_place(head):
    """And never copied: no tensor is made that is as large as the queue."""
    model = build_unimoco(num_classes=3, queue_len=4096, **HEADS[head])
    head, queues = model.head, dict(model.head.named_buffers())
    places = {name: _place(queue) for name, queue in queues.items()}
    for _ in range(3):
        query, key = torch.rand(2, 4, 16)
        labels = torch.ones(4).long()
        if head.multi_label:
            labels = torch.ones(4, 3).bool()
        with _NewTensors() as new:
            samples = SampleLabels(labels, torch.arange(4))
            head.loss(query, key, samples)
        assert max(new.elements) < head.queue.numel()
        assert torch.equal(head.queue[head.queue_ptr - 1], key[-1:])
    for name, queue in head.named_buffers():
        assert _place(queue) == places[name], name
        assert queue is queues[name], name
