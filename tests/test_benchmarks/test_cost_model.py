"""The cost model against what torch counts and saves.

What processes send is compared in ``test_cases.py``.
"""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmpretrain.registry import MODELS
from torch.nn import functional

import mmunimoco  # noqa: F401
from benchmarks.cost_model import Step, step_cost
from benchmarks.cost_times import HARDWARE, link_rates, step_times
from benchmarks.flops import count_flops
from benchmarks.saved_tensors import saved_bytes

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(gpus=1, batch=2, image=64, activation_bytes=4)


def build_encoder(step):
    """Backbone and neck as in the configs."""
    features = 2048 if step.depth >= 50 else 512
    modules = [
        dict(type='ResNet', depth=step.depth),
        dict(
            type='MoCoV2Neck',
            in_channels=features,
            hid_channels=step.hidden,
            out_channels=step.feat_dim,
        ),
    ]
    return torch.nn.Sequential(*map(MODELS.build, modules)).train()


@pytest.fixture(scope='module', params=[18, 50])
def case(request):
    """A step and an encoder of its shape."""
    hidden = 2048 if request.param == 50 else 512
    step = Step(depth=request.param, hidden=hidden, **SMALL)
    return step, build_encoder(step)


def test_flops_and_activations_of_the_encoder(case):
    step, encoder = case
    cost = step_cost(step)
    images = torch.randn(step.batch, 3, step.image, step.image)
    forward = count_flops(lambda: encoder(images))
    assert forward == cost.forward_flops
    both = count_flops(lambda: encoder(images)[0].sum().backward())
    assert both == cost.forward_flops + cost.backward_flops
    saved = saved_bytes(lambda: encoder(images), encoder)
    assert saved == cost.activation_bytes


def test_parameters(case):
    step, encoder = case
    count = sum(p.numel() for p in encoder.parameters())
    assert step_cost(step).parameters == count
    assert step_cost(step).state_bytes == 16 * count


def test_flops_of_the_head():
    step = Step(gpus=1, batch=8, queue_len=4096, feat_dim=32)
    head = MODELS.build(
        dict(
            type='UniMoCoHead',
            feat_dim=step.feat_dim,
            queue_len=step.queue_len,
        )
    )
    query, key = (
        functional.normalize(torch.randn(8, 32), dim=1) for _ in range(2)
    )
    query.requires_grad_()
    labels = torch.full((8,), -1)
    counted = count_flops(
        lambda: head.loss(query, key, labels)['loss'].backward()
    )
    assert counted == pytest.approx(step_cost(step).head_flops, rel=0.01)
    held = sum(b.nbytes for n, b in head.named_buffers() if n != 'queue_ptr')
    assert step_cost(step).queue_bytes == held


def test_collectives_grow_as_they_should():
    costs = {
        (gpus, shuffle): step_cost(Step(gpus, 32, shuffle))
        for gpus in (1, 8, 512)
        for shuffle in ('all_to_all', 'all_gather')
    }
    alone = costs[1, 'all_to_all']
    assert alone.gradient_bytes == alone.image_bytes == alone.key_bytes == 0
    batch = 32 * 3 * 224 * 224 * 4
    assert costs[8, 'all_to_all'].image_bytes == batch * 7 / 8
    assert costs[512, 'all_to_all'].image_bytes < batch
    assert costs[512, 'all_gather'].image_bytes == 511 * batch
    assert costs[512, 'all_gather'].flops == alone.flops


def test_times_add_up():
    hardware = HARDWARE['h200']
    slow = step_times(Step(1, 256), hardware, core_seconds=1.0)
    assert slow.limit == 'image loading'
    assert slow.step == slow.loading == 256 / hardware.cores
    fast = step_times(Step(1, 256), hardware, core_seconds=0.0)
    assert fast.step == max(fast.compute, fast.memory)
    far = step_times(Step(512, 32, 'all_gather'), hardware, 0.0)
    assert far.limit == 'shuffle'
    assert far.step > 4 * step_times(Step(512, 32), hardware, 0.0).step


def test_rates_within_and_between_machines():
    hardware = HARDWARE['h200']
    within, between = link_rates(8, hardware), link_rates(16, hardware)
    assert within[0] == within[1] > between[0]
    assert between[0] == pytest.approx(8 * between[1])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(shuffle='broadcast'), 'shuffle must be one of'),
        (dict(gpus=0), 'gpus must be 1 or more'),
        (dict(activation_bytes=1), 'activation_bytes must be 2 or 4'),
        (dict(image=100), 'multiple of 32'),
        (dict(depth=20), 'depth must be one of'),
    ],
)
def test_wrong_steps_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        step_cost(Step(**change))


def test_command(monkeypatch, capsys):
    path = str(ROOT / 'tools' / 'benchmarks' / 'cost_model.py')
    monkeypatch.setenv('COLUMNS', '120')
    monkeypatch.setattr(sys, 'argv', [path, '--gpus', '1', '64'])
    runpy.run_path(path, run_name='__main__')
    printed = capsys.readouterr().out
    # As in docs/performance.md.
    for text in ('27.97 M', '1.041 TFLOP', 'all_gather', '1213.9 MB'):
        assert text in printed
    monkeypatch.setattr(sys, 'argv', [path, '--batch', '0'])
    with pytest.raises(SystemExit, match='batch must be 1 or more, got 0'):
        runpy.run_path(path, run_name='__main__')
