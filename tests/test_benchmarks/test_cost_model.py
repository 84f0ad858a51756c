"""The cost model against real modules, and its formulas."""

from dataclasses import replace

import pytest
import torch
from mmpretrain.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

import mmunimoco  # noqa: F401
from benchmarks import cost_model, estimate
from benchmarks.cost_model import HARDWARE, Step, step_cost, step_times


def test_encoder_equals_a_run_on_the_cpu():
    cost = cost_model.encoder_cost(2, False, 18, 64, 512, 32)
    encoder = torch.nn.Sequential(
        MODELS.build(dict(type='ResNet', depth=18)),
        MODELS.build(
            dict(
                type='MoCoV2Neck',
                in_channels=512,
                hid_channels=512,
                out_channels=32,
            )
        ),
    )
    own = {x.data_ptr() for x in encoder.state_dict().values()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
    ):
        out = encoder(torch.randn(2, 3, 64, 64))[0]
        assert counter.get_total_flops() == cost.forward_flops
        saved = sum(storage.nbytes() for storage in storages.values())
        out.sum().backward()
    total = cost.forward_flops + cost.backward_flops
    assert counter.get_total_flops() == total
    assert saved == cost.activation_bytes
    assert cost.parameters == sum(p.numel() for p in encoder.parameters())


def test_queue_of_the_real_head():
    step = Step(gpus=1, batch=8, image=32, queue_len=4096, feat_dim=32)
    head = MODELS.build(dict(type='UniMoCoHead', feat_dim=32, queue_len=4096))
    held = head.queue.nbytes + head.label_queue.nbytes
    assert step_cost(step).queue_bytes == held


def test_bytes_grow_with_gpus():
    step = Step(gpus=1, image=224)
    costs = {
        (gpus, shuffle): step_cost(replace(step, gpus=gpus, shuffle=shuffle))
        for gpus in (1, 8, 512)
        for shuffle in ('all_to_all', 'all_gather')
    }
    alone = costs[1, 'all_to_all']
    assert alone.gradient_bytes == alone.image_bytes == alone.key_bytes == 0
    batch = 32 * 3 * 224 * 224 * 4
    assert costs[8, 'all_to_all'].image_bytes == batch * 7 / 8
    assert costs[512, 'all_to_all'].image_bytes < batch
    assert costs[512, 'all_gather'].image_bytes == 511 * batch


def test_limits():
    hardware, step = HARDWARE['h200'], Step(gpus=512, image=224)
    far = step_times(replace(step, shuffle='all_gather'), hardware, 0.0)
    assert max(far, key=far.get) == 'shuffle'
    near = step_times(step, hardware, 0.0)
    assert cost_model.seconds_per_step(far) > 4 * cost_model.seconds_per_step(
        near
    )
    slow = step_times(step, hardware, core_seconds=1.0)
    assert cost_model.seconds_per_step(slow) == 32 / hardware.cores


def test_command(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '140')
    assert cost_model.main(['--gpus', '1', '64']) == 0
    printed = capsys.readouterr().out
    for text in ('27.97 M', '1.041 TFLOP', 'all_gather', '1213.9 MB'):
        assert text in printed
    assert cost_model.main(['--batch', '0']) == 1
    assert 'batch must be at least 1, got 0' in capsys.readouterr().err


def test_estimate_gives_back_what_was_measured():
    # docs/benchmarks/h100/prof.json: step alone, augmenting, batch 256.
    rate = estimate.total_rate(1, 256, host=True)
    assert abs(rate / 3430 - 1) < 2e-3
    # The host alone: 63.4 ms a step, however small; 8 GPUs have 8 hosts.
    slow = estimate.total_rate(8, 32, host=True)
    assert abs(slow / (8 * 32 / 0.0634) - 1) < 1e-9
    fast = [estimate.total_rate(n, 32, host=False) / n for n in (1, 8, 64)]
    assert fast[0] > fast[1] > fast[2] > slow / 8


def test_estimate_command(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '140')
    assert estimate.main(['--gpus', '8']) == 0
    assert '26321' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        estimate.main(['--gpus', '8', '0'])
    assert '--gpus must be at least 1, got 0' in capsys.readouterr().err
