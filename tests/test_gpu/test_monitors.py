"""The monitors on a device measure what they measure on a CPU."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from small_unimoco import build_unimoco, compute_loss, draw_batches

from mmunimoco.engine import FeatureMonitorHook, OnlineProbeHook
from mmunimoco.models.labels import SampleLabels


def measure(model):
    """Values of both hooks after four steps."""
    loader = SimpleNamespace(dataset=None)
    runner = SimpleNamespace(model=model, train_dataloader=loader)
    hooks = FeatureMonitorHook(), OnlineProbeHook(num_classes=3)
    for hook in hooks:
        hook.before_train(runner)
    hooks[0]._wanted = True
    for views, labels in draw_batches(steps=4):
        compute_loss(model, views, labels)
    values = {}
    for hook in hooks:
        values |= hook.measure(runner)
        hook.after_train(runner)
    resumed = OnlineProbeHook(num_classes=3)
    resumed.load_state_dict(deepcopy(hooks[1].state_dict()))
    resumed._features = torch.zeros(8, 64, device=model.head.queue.device)
    resumed.head = model.head
    labels = torch.zeros(8, device=model.head.queue.device).long()
    resumed.observe(None, None, SampleLabels(labels), [])
    values['weight'] = resumed.probe.weight.detach().norm()
    return {name: float(value) for name, value in values.items()}


def test_values_equal_those_of_a_cpu(device):
    wanted = measure(build_unimoco(label_warmup=9))
    found = measure(build_unimoco(label_warmup=9).to(device))
    assert set(found) == set(wanted) and len(wanted) == 15
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-3)
