"""What a config asks for against what data and machine have."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OneCycleLR
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmunimoco.engine.checks.config_values import (
    advise,
    check_batch,
    check_batch_norm,
    check_last_batch,
    check_queue,
    check_schedule,
    check_topk,
)
from mmunimoco.engine.checks.memory import (
    SavedTensors,
    Sizes,
    available_memory,
    check_memory,
    knn_memory,
)
from mmunimoco.evaluation.metrics import fit_topk

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(
    path
    for path in ROOT.glob('configs/**/*.py')
    if '_base_' not in path.parts and path.name.startswith(('unimoco', 'res'))
)


@pytest.mark.parametrize(
    ('topk', 'classes', 'expected'),
    [
        ((1, 5), 2, (1,)),
        ((1, 2, 5), 4, (1, 2)),
        ((5,), 3, (1,)),
        ((1, 5), 5, (1, 5)),
        ((1, 5), None, (1, 5)),  # unknown
        (5, 2, 5),  # a multi-label threshold, another meaning
    ],
)
def test_top_k_follows_the_number_of_classes(topk, classes, expected):
    metric = SimpleNamespace(topk=topk)
    fit_topk([metric, object(), None], classes, 'val_evaluator')
    assert metric.topk == expected


def test_top_k_of_a_config():
    cfg = dict(val_evaluator=[dict(type='A'), dict(type='B', topk=(1, 5))])
    (advice,) = check_topk(cfg, 3)
    assert 'only (1,)' in advice.text and '3 classes' in advice.text
    assert check_topk(cfg, 5) == check_topk(cfg, 0) == check_topk({}, 2) == []


def test_configs_of_other_packages_have_other_parts():
    cfg = dict(
        model=dict(neck=[dict(type='FPN'), dict(type='BFP')], head=[dict()]),
        train_dataloader=dict(batch_sampler=dict(type='X')),
        optim_wrapper=dict(type='OptimWrapper', optimizer=None),
        train_cfg=dict(max_epochs=1),
        auto_scale_lr=dict(base_batch_size=16),
        param_scheduler=dict(generator=[dict(type='ConstantLR')]),
        custom_hooks=None,
        val_cfg=None,
    )
    assert advise(cfg, nn.Linear(1, 1), Sizes(10, 1, 5, 5)) == []


def test_queue_as_long_as_the_dataset():
    def check(**head):
        return check_queue(dict(model=dict(head=head)), 200)

    advice = check(queue_len=4096)
    assert 'queue_len is 4096 for 200' in advice.text
    assert 'queue_len=50' in advice.fix
    assert check(queue_len=200) and not check(queue_len=199)
    assert not check(queue_len=4096, exclude_own_keys=True) and not check()


COSINE = dict(type='CosineAnnealingLR', by_epoch=True)
STEPS = dict(type='MultiStepLR', by_epoch=True)
WARM_UP = dict(type='LinearLR', by_epoch=False)
ONE_CYCLE = dict(type='OneCycleLR', eta_max=0.1)
RESTARTS = dict(type='CosineRestartLR', eta_min=0)


@pytest.mark.parametrize(
    ('schedule', 'found'),
    [
        ([COSINE], None),
        ([dict(COSINE, T_max=200)], None),
        ([dict(COSINE, T_max=100)], 'after 100 epochs, but the run has 200'),
        ([dict(COSINE, end=150)], 'end after 150 epochs'),
        ([dict(COSINE, T_max=300)], 'T_max is 300, but the run has 200'),
        ([dict(COSINE, end=100), dict(STEPS, begin=100)], None),
        ([dict(COSINE, begin=40)], None),
        ([COSINE, dict(STEPS, begin=200)], 'begin is 200, but the run has'),
        ([dict(STEPS, milestones=[120, 160])], None),
        ([dict(STEPS, milestones=[120, 200])], r'milestones is \[120, 200\]'),
        # 200 epochs of 10 steps.
        ([dict(WARM_UP, end=500), COSINE], None),
        ([dict(WARM_UP, end=2000), COSINE], None),
        ([dict(WARM_UP, end=5000), COSINE], '5000.*has 2000 iterations'),
        (dict(COSINE, T_max=20), 'after 20 epochs'),  # not in a list
        ([ONE_CYCLE], None),
        ([dict(ONE_CYCLE, total_steps=200)], None),
        ([dict(ONE_CYCLE, total_steps=150)], 'steps is 150.* 200 .*stop with'),
        ([dict(ONE_CYCLE, total_steps=150, end=150)], None),
        ([dict(ONE_CYCLE, total_steps=150, begin=50)], None),
        ([dict(ONE_CYCLE, total_steps=300)], 'total_steps is 300'),
        ([dict(RESTARTS, periods=[50, 150])], None),
        ([dict(RESTARTS, periods=[50, 100])], 'after 150 epochs'),
        ([dict(RESTARTS, periods=[50, 250])], r'periods is \[50, 250\]'),
        (None, None),
    ],
)
def test_schedule_of_another_length(schedule, found):
    cfg = dict(
        train_cfg=dict(max_epochs=200),
        train_dataloader=dict(batch_size=50),
        param_scheduler=schedule,
    )
    found_advice = list(check_schedule(cfg, Sizes(1000, processes=2)))
    assert len(found_advice) == (found is not None)
    for advice in found_advice:
        assert re.search(found, advice.text)


@pytest.mark.parametrize(
    ('options', 'fails'),
    [
        (dict(total_steps=12), True),
        (dict(total_steps=12, begin=5), True),
        (dict(total_steps=12, end=30), True),
        (dict(total_steps=12, end=12), False),
        (dict(total_steps=12, begin=8), False),
        (dict(total_steps=20), False),
        (dict(), False),
    ],
)
def test_one_cycle_that_mmengine_would_not_bring_to_the_end(options, fails):
    cfg = dict(
        train_cfg=dict(max_epochs=20),
        param_scheduler=[dict(ONE_CYCLE, **options)],
    )
    advice = list(check_schedule(cfg, Sizes(1000)))
    assert any(one.stops for one in advice) == fails
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    scheduler = OneCycleLR(optimizer, eta_max=0.1, **dict(end=20) | options)
    with pytest.raises(ValueError) if fails else nullcontext():
        for _ in range(20):
            optimizer.step()
            scheduler.step()


def test_last_batch_counts_unless_it_is_dropped():
    """100 images in batches of 64, for ten epochs."""
    loader = dict(batch_size=64)
    cfg = dict(
        train_cfg=dict(max_epochs=10),
        train_dataloader=loader,
        param_scheduler=[dict(WARM_UP, end=20)],
    )
    assert not list(check_schedule(cfg, Sizes(100)))
    loader['drop_last'] = True
    (advice,) = check_schedule(cfg, Sizes(100))
    assert 'has 10 iterations' in advice.text


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_have_settings_that_fit(path):
    """With the processes and as many images as their names say."""
    cfg = Config.fromfile(path)
    gpus = 8 if '_8xb' in path.name else 1
    sizes = Sizes(1_281_167, gpus)
    assert not list(check_schedule(cfg, sizes))
    if 'train_dataloader' in cfg:
        assert check_batch(cfg, gpus) is None
        assert check_queue(cfg, 50_000 if 'cifar' in path.name else 10**6) is (
            None
        )


def test_batch_far_from_the_base():
    def check(batch_size, processes=1, counts=1, **options):
        return check_batch(
            dict(
                train_cfg=dict(max_epochs=1),
                train_dataloader=dict(batch_size=batch_size),
                optim_wrapper=dict(
                    accumulative_counts=counts, optimizer=dict(lr=0.06)
                ),
                auto_scale_lr=dict(base_batch_size=512, **options),
            ),
            processes,
        )

    advice = check(16)
    assert 'sees 16 images' in advice.text and '0.06 is for 512' in advice.text
    assert 'multiplies it by 0.0312' in advice.fix
    assert not check(16, counts=32) and not check(16, processes=32)
    assert not check(16, enable=True) and not check(300)
    assert check(512, processes=2)


def model(norm, neck=None, **backbone):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='UniMoCo',
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    stem_channels=8,
                    base_channels=8,
                    norm_cfg=norm,
                    **backbone,
                ),
                neck=neck
                or dict(
                    type='MoCoV2Neck',
                    in_channels=64,
                    hid_channels=8,
                    out_channels=8,
                ),
                head=dict(type='UniMoCoHead', feat_dim=8, queue_len=8),
            )
        )


@pytest.mark.parametrize(
    ('images', 'processes', 'options', 'stops'),
    [
        (65, 1, {}, True),
        (130, 2, {}, True),
        (65, 1, dict(drop_last=True), False),
        (66, 1, {}, False),
        (65, 1, dict(batch_size=1), False),
    ],
)
def test_last_batch_of_one_image(images, processes, options, stops):
    cfg = Config.fromfile(
        ROOT / 'configs/own_data/resnet18_finetune_small-images.py'
    )
    cfg.train_dataloader.update(options)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        fine_tuned = MODELS.build(cfg.model)
    found = advise(cfg, fine_tuned, Sizes(images, processes, 0, 0))
    found = [x for x in found if 'last batch' in x.text]
    assert bool(found) == stops
    # What it warns of: one image of 32 pixels is one value a channel.
    fine_tuned.train()
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        fine_tuned(torch.zeros(1, 3, 32, 32))
    # A frozen backbone takes any batch.
    fine_tuned.backbone.norm_eval = True
    found = advise(cfg, fine_tuned, Sizes(images, processes, 0, 0))
    assert not [x for x in found if 'last batch' in x.text]


@pytest.mark.parametrize(
    ('images', 'processes', 'drop_last', 'stops'),
    [
        (35, 1, False, True),
        (70, 2, False, True),
        (36, 1, False, False),
        (64, 1, False, False),
        (35, 1, True, False),
    ],
)
def test_last_batch_has_an_image_for_each_group(
    images, processes, drop_last, stops
):
    loader = dict(batch_size=32, drop_last=drop_last)
    split = model(dict(type='SplitBatchNorm', num_splits=4))
    found = check_last_batch(
        dict(train_dataloader=loader), split, Sizes(images, processes)
    )
    assert bool(found) == stops
    if stops:
        assert 'leave 3 for the last batch' in found.text
        split.train()
        with pytest.raises(ValueError, match='cannot split 3 samples'):
            split.backbone(torch.zeros(3, 3, 64, 64))
    # A frozen backbone takes any batch.
    split.backbone.norm_eval = True
    assert not check_last_batch(
        dict(train_dataloader=loader), split, Sizes(images, processes)
    )


def test_plain_batch_norm_on_one_process():
    cfg = dict(train_dataloader=dict(batch_size=32))
    plain = model(dict(type='BN'))
    advice = check_batch_norm(cfg, plain, 1)
    assert 'num_splits=4' in advice.fix
    assert check_batch_norm(cfg, plain, 2) is None
    split = dict(type='SplitBatchNorm', num_splits=2)
    assert check_batch_norm(cfg, model(split), 1) is None
    assert check_batch_norm(cfg, model(dict(type='GN', num_groups=2)), 1) is (
        None
    )
    assert check_batch_norm(cfg, nn.BatchNorm2d(2), 1) is None
    frozen = model(dict(type='BN'), norm_eval=True)
    assert check_batch_norm(cfg, frozen, 1) is None
    plain.neck.mlp.append(nn.BatchNorm1d(8))
    advice = check_batch_norm(cfg, plain, 1)
    assert 'model.backbone and model.neck has plain' in advice.text
    neck = dict(type='NonLinearNeck', in_channels=64, hid_channels=8)
    neck |= dict(out_channels=8, norm_cfg=dict(type='BN1d'))
    mixed = model(split, neck=neck)
    assert 'model.neck.norm_cfg' in check_batch_norm(cfg, mixed, 1).fix


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('LeViT', dict(arch='128s', img_size=64)),  # takes no norm_cfg
        # Leaves the batch norm of the convolutions as it is.
        ('MobileViT', dict(arch='xx_small')),
    ],
)
def test_batch_norm_that_norm_cfg_does_not_reach(name, options):
    if name == 'MobileViT':
        options['norm_cfg'] = dict(type='SplitBatchNorm', num_splits=2)
    network = model(dict(type='GN', num_groups=2))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network.backbone = MODELS.build(dict(type=name, **options))
    advice = check_batch_norm({}, network, 1)
    assert f'batch norm of {name}' in advice.fix
    assert 'norm_cfg.type' not in advice.fix


def test_synchronised_batch_norm():
    """Shuffling the keys does not change statistics of all processes."""
    plain = model(dict(type='BN'))
    assert check_batch_norm({}, plain, 2) is None
    for cfg, network in (
        (dict(sync_bn='torch'), plain),
        ({}, model(dict(type='SyncBN'))),
    ):
        advice = check_batch_norm(cfg, network, 2)
        assert 'synchronised' in advice.text and 'use BN' in advice.fix
    group = model(dict(type='GN', num_groups=2))
    assert check_batch_norm(dict(sync_bn='torch'), group, 2) is None


def test_memory_of_knn():
    cfg = dict(
        model=dict(neck=dict(in_channels=2048)), val_cfg=dict(k=(20, 200))
    )
    sizes = Sizes(1, bank=10_000_000, queries=100)
    needs = knn_memory(cfg, sizes)
    bank, queries = needs.values()
    assert bank == 10_000_000 * 2048 * 4
    assert queries == 100 * (2 * 2048 * 4 + 200 * 12)
    advice = check_memory(needs, available=23 * 2**30)
    assert 'about 76.3 GB of memory are needed' in advice.text
    assert 'but 23.0 GB are available' in advice.text
    assert check_memory(needs, available=77 * 2**30) is None
    cfg['val_cfg']['bank_dtype'] = 'float16'
    assert next(iter(knn_memory(cfg, sizes).values())) == bank / 2
    assert knn_memory(cfg, Sizes(1)) == {}


@pytest.mark.parametrize(
    ('limit', 'expected'), [('max', 6e9), ('9e9', 6e9), ('4e9', 3e9)]
)
def test_available_memory_is_that_of_the_container(
    monkeypatch, limit, expected
):
    files = {
        'meminfo': f'MemTotal: 9 kB\nMemAvailable: {6e9 / 1024:.0f} kB\n',
        'memory.max': limit,
        'memory.current': '2e9',
        'memory.stat': 'anon 5\ninactive_file 1000000000\n',
    }
    monkeypatch.setattr(Path, 'read_text', lambda path: files[path.name])
    assert available_memory() == pytest.approx(expected, rel=1e-6)
    monkeypatch.undo()
    assert 0 < available_memory() < 2**50


def test_saved_activations_are_counted():
    layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    saved, images = SavedTensors(layers), torch.rand(4, 8)
    with saved_tensors_hooks(saved, lambda tensor: tensor):
        layers(images).sum().backward()
    # The images, and the hidden values once; neither weights nor biases.
    assert saved.bytes == 4 * (4 * 8 + 4 * 32)
