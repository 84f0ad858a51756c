import copy
import math

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage
from mmpretrain.registry import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmunimoco.models.momentum_encoder import MomentumEncoder


def encoder(seed=0, width=4):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)),
        nn.Sequential(nn.Flatten(), nn.LazyLinear(2)),
    )


def built_encoder(seed=0, width=4):
    net = encoder(seed, width)
    net(torch.zeros(2, 3, 5, 5))
    return net


@torch.no_grad()
def wander(net, seed):
    """Stand in for an optimiser step."""
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.add_(torch.randn(p.shape, generator=generator))


@pytest.fixture
def max_iters():
    """Publish the length of a run as mmengine's runner does."""
    hub = MessageHub.get_instance('test_momentum_encoder')
    yield lambda n: hub.update_info('max_iters', n)
    MessageHub._instance_dict.pop('test_momentum_encoder')


class Ops(TorchDispatchMode):
    """Record the kernels that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_follows_the_moving_average_of_a_hand_loop():
    query = built_encoder().double()
    key = MomentumEncoder(query, momentum=0.1)
    expected = None
    for step in range(6):
        key.update(query)
        if expected is None:
            expected = [p.detach().clone() for p in query.parameters()]
        else:
            for e, p in zip(expected, query.parameters(), strict=True):
                e.copy_(0.9 * e + 0.1 * p.detach())
        for e, k in zip(expected, key.module.parameters(), strict=True):
            torch.testing.assert_close(k.data, e, rtol=1e-12, atol=1e-14)
        wander(query, step)
    assert int(key.steps) == 6


@pytest.mark.parametrize('momentum', [0.001, 0.3])
def test_equals_mmengine_bit_by_bit(momentum):
    query = built_encoder()
    ours = MomentumEncoder(query, momentum)
    theirs = ExponentialMovingAverage(query, momentum)
    for step in range(10):
        wander(query, step)
        ours.update(query)
        theirs.update_parameters(query)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(ours.steps, theirs.steps)


def test_first_update_copies_what_was_loaded_after_construction():
    query = built_encoder(seed=0)
    key = MomentumEncoder(query)
    pretrained = built_encoder(seed=1)
    pretrained[0][1].running_mean.fill_(7)
    query.load_state_dict(pretrained.state_dict())
    key.update(query)
    for name, value in pretrained.state_dict().items():
        assert torch.equal(key.module.state_dict()[name], value)


def test_later_updates_leave_bn_statistics_alone():
    query = built_encoder()
    key = MomentumEncoder(query, momentum=0.5)
    key.update(query)
    torch.manual_seed(0)
    key(torch.randn(8, 3, 5, 5))
    own = {n: b.clone() for n, b in key.module.named_buffers()}
    query(10 + torch.randn(8, 3, 5, 5))
    key.update(query)
    query_buffers = dict(query.named_buffers())
    for name, buffer in key.module.named_buffers():
        assert torch.equal(buffer, own[name])
        if 'running' in name:
            assert not torch.equal(buffer, query_buffers[name])


def test_is_one_foreach_call_and_never_waits_for_the_device():
    query = built_encoder()
    key = MomentumEncoder(query, momentum=0.5)
    key.update(query)
    with Ops() as ops:
        key.update(query)
    assert ops.names.count('_foreach_lerp_') == 1
    assert '_local_scalar_dense' not in ops.names  # item(), int(), bool()
    # Nothing else but the counter.
    assert [n for n in ops.names if n not in ('_foreach_lerp_', 'detach')] == [
        'add_'
    ]


def test_mixed_dtypes_are_averaged_in_groups():
    query = nn.ParameterDict(
        {
            'single_': nn.Parameter(torch.tensor([1.0, 2.0])),
            'double_': nn.Parameter(torch.tensor([1.0, 2.0]).double()),
            'brain_': nn.Parameter(torch.tensor([1.0, 2.0]).bfloat16()),
            'other_': nn.Parameter(torch.tensor([3.0])),
            'complex_': nn.Parameter(torch.tensor([1 + 2j])),
            'integer_': nn.Parameter(torch.tensor([4]), requires_grad=False),
        }
    )
    key = MomentumEncoder(query, momentum=0.25)
    key.update(query)
    with torch.no_grad():
        for p in query.parameters():
            p.add_(4)
    key.update(query)
    module = key.module
    for name in ('single_', 'double_', 'brain_'):
        assert module[name].dtype == query[name].dtype
        assert module[name].tolist() == [2.0, 3.0]
    assert module['other_'].tolist() == [4.0]
    assert module['complex_'].tolist() == [2 + 2j]
    assert module['integer_'].tolist() == [8]  # cannot be averaged: copied


def test_source_of_another_precision_is_averaged_in_float32():
    query = nn.Linear(3, 3)
    key = MomentumEncoder(query, momentum=0.001)
    key.update(query)
    before = key.module.weight.clone()
    half = copy.deepcopy(query).bfloat16()
    with torch.no_grad():
        half.weight.add_(1)
    key.update(half)
    assert key.module.weight.dtype == torch.float32
    expected = before + 0.001 * (half.weight.float() - before)
    torch.testing.assert_close(key.module.weight.data, expected)


@pytest.mark.parametrize('momentum', [0, 1, 1.0])
def test_ends_of_the_range(momentum):
    query = nn.Linear(2, 2)
    key = MomentumEncoder(query, momentum)
    key.update(query)
    first = query.weight.detach().clone()
    wander(query, 0)
    key.update(query)
    expected = first if momentum == 0 else query.weight
    assert torch.equal(key.module.weight, expected)


@pytest.mark.parametrize(
    'field', ['momentum', 'end_momentum', 'start_momentum']
)
@pytest.mark.parametrize('value', [-0.1, 1.5, math.nan, math.inf])
def test_momentum_outside_the_range_is_named(field, value):
    with pytest.raises(ValueError, match=rf'`{field}` must lie in \[0, 1\]'):
        MomentumEncoder(nn.Linear(1, 1), **{field: value})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(start_momentum=0.1), 'need each other, got 0.1 and 0'),
        (dict(momentum_warmup=5), 'need each other, got None and 5'),
        (dict(momentum_warmup=-1), 'integer >= 0, got -1'),
        (dict(start_momentum=0.1, momentum_warmup=2.5), 'got 2.5'),
    ],
)
def test_incomplete_warmup_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        MomentumEncoder(nn.Linear(1, 1), **options)


def test_warmup_is_linear_and_resumes():
    query = nn.Linear(2, 2)
    options = dict(momentum=0.1, start_momentum=0.5, momentum_warmup=4)
    key, found, weight = MomentumEncoder(query, **options), [], None
    for step in range(6):
        if step == 3:  # a new process
            state = copy.deepcopy(key.state_dict())
            key = MomentumEncoder(query, **options)
            key.load_state_dict(state)
        found.append(key.current_momentum())
        new = query.weight.detach().clone()
        weight = new if step == 0 else torch.lerp(weight, new, found[-1])
        key.update(query)
        torch.testing.assert_close(key.module.weight.data, weight)
        wander(query, step)
    assert found == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.1])


def test_warmup_leads_onto_the_cosine(max_iters):
    max_iters(8)
    query, values = nn.Linear(1, 1), {}
    for warmup in (dict(start_momentum=0.5, momentum_warmup=4), {}):
        key = MomentumEncoder(query, momentum=0.1, end_momentum=0.0, **warmup)
        for step in range(8):
            values.setdefault(step, []).append(key.current_momentum())
            key.update(query)
    warm, plain = zip(*values.values(), strict=True)
    # Half way of the warm-up: half way between its start and the cosine.
    assert warm[2] == pytest.approx((0.5 + plain[2]) / 2)
    assert warm[4:] == plain[4:]


@pytest.mark.parametrize('value', ['0.1', True, [0.1]])
def test_momentum_that_is_no_number_is_named(value):
    with pytest.raises(TypeError, match='`momentum` must be a number'):
        MomentumEncoder(nn.Linear(1, 1), momentum=value)


def test_cosine_momentum_equals_mmpretrain(max_iters):
    max_iters(8)
    query = built_encoder()
    ours = MomentumEncoder(query, momentum=0.4, end_momentum=0.05)
    theirs = MODELS.get('CosineEMA')(query, momentum=0.4, end_momentum=0.05)
    for step in range(8):
        expected = 0.05 + 0.35 * (math.cos(math.pi * step / 8) + 1) / 2
        assert ours.current_momentum() == pytest.approx(expected, abs=1e-12)
        wander(query, step)
        ours.update(query)
        theirs.update_parameters(query)
    torch.testing.assert_close(
        list(ours.parameters()), list(theirs.parameters())
    )


def test_cosine_momentum_stays_at_its_end(max_iters):
    max_iters(2)
    query = nn.Linear(1, 1)
    key = MomentumEncoder(query, momentum=0.4, end_momentum=0.0)
    for _ in range(4):
        key.update(query)
    assert key.current_momentum() == 0.0


def test_cosine_momentum_without_length_of_run_stops_at_once():
    MessageHub.get_instance('run_of_unknown_length')
    key = MomentumEncoder(nn.Linear(1, 1), end_momentum=0.0)
    try:
        with pytest.raises(ValueError, match='max_iters'):
            key.update(nn.Linear(1, 1))
    finally:
        MessageHub._instance_dict.pop('run_of_unknown_length')
    assert int(key.steps) == 0


def test_loaded_count_decides_between_copy_and_average():
    query = nn.Linear(2, 2)
    trained = MomentumEncoder(query, momentum=0.5)
    trained.update(query)
    wander(query, 0)
    trained.update(query)
    saved = copy.deepcopy(trained.state_dict())

    # Loaded after updates were done, and before the first one: both resume.
    for updates in (0, 3):
        resumed = MomentumEncoder(query, momentum=0.5)
        for _ in range(updates):
            resumed.update(query)
        resumed.load_state_dict(saved)
        wander(query, 1)
        resumed.update(query)
        expected = torch.lerp(
            saved['module.weight'], query.weight.detach(), 0.5
        )
        assert torch.equal(resumed.module.weight, expected)
        assert int(resumed.steps) == 3

    # A state that was never updated is copied into.
    trained.load_state_dict(MomentumEncoder(nn.Linear(2, 2)).state_dict())
    trained.update(query)
    assert torch.equal(trained.module.weight, query.weight)


def test_is_a_frozen_copy_and_runs_without_gradient():
    query = built_encoder()
    key = MomentumEncoder(query)
    assert not any(p.requires_grad for p in key.parameters())
    assert all(p.requires_grad for p in query.parameters())
    shared = {p.data_ptr() for p in query.parameters()}
    assert shared.isdisjoint(p.data_ptr() for p in key.parameters())
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    assert not key(x).requires_grad
    assert torch.equal(key(x), query(x))


@pytest.mark.parametrize(
    'other, message',
    [
        (lambda: built_encoder(width=5), r'0\.0\.weight: \(4, 3, 3, 3\) here'),
        (lambda: built_encoder()[:1], r'1\.1\.weight: .*absent there'),
    ],
)
def test_changed_structure_is_named(other, message):
    key = MomentumEncoder(built_encoder())
    with pytest.raises(ValueError, match=message):
        key.update(other())


def test_changed_buffers_are_named():
    net = nn.Sequential(nn.BatchNorm1d(2))
    key = MomentumEncoder(net)
    other = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(ValueError, match='3 buffers here, 0'):
        key.update(other)


def test_loads_the_key_encoder_of_mmpretrains_moco():
    moco = MODELS.build(
        dict(
            type='MoCo',
            backbone=dict(type='ResNet', depth=18, base_channels=8),
            neck=dict(
                type='MoCoV2Neck',
                in_channels=64,
                hid_channels=8,
                out_channels=4,
            ),
            head=dict(
                type='ContrastiveHead',
                loss=dict(type='CrossEntropyLoss'),
                temperature=0.2,
            ),
            queue_len=8,
            feat_dim=4,
        )
    )
    moco.encoder_k.steps.fill_(17)
    wander(moco.encoder_k, 0)
    checkpoint = moco.state_dict()
    prefix = 'encoder_k.'
    theirs = {
        name.removeprefix(prefix): value
        for name, value in checkpoint.items()
        if name.startswith(prefix)
    }
    ours = MomentumEncoder(nn.Sequential(moco.backbone, moco.neck))
    ours.load_state_dict(theirs, strict=True)
    assert list(ours.state_dict()) == list(theirs)
    for name, value in ours.state_dict().items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value, theirs[name])
