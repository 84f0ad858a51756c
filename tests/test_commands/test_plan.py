"""Settings chosen for a folder, and the config that is written."""

from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

from mmunimoco.commands.image_folder import ImageFolder
from mmunimoco.commands.plan import PHOTOS, SMALL, Machine, Plan

CPU, SMALL_GPU, H100 = Machine(0, 4), Machine(12, 8), Machine(80, 64)


def folder(count, side, classes=2):
    labels = [i % classes if classes else -1 for i in range(count)]
    names = [f'{i}.png' for i in range(count)]
    return ImageFolder(
        Path('images'), names, labels, tuple('abcdef'[:classes]), side
    )


@pytest.mark.parametrize(
    ('count', 'side', 'machine', 'expected'),
    [
        (40, 20, CPU, dict(base=SMALL, size=32, batch=8, queue=8, epochs=200)),
        (1000, 50, CPU, dict(size=64, batch=64, queue=128, epochs=100)),
        (60_000, 400, CPU, dict(base=SMALL, size=96, queue=4096, epochs=20)),
        (60_000, 32, H100, dict(base=SMALL, size=32, batch=64, workers=16)),
        (2000, 400, H100, dict(base=PHOTOS, batch=256, queue=256, epochs=800)),
        (1_281_167, 400, H100, dict(size=224, queue=65536, epochs=200)),
        (50_000, 400, SMALL_GPU, dict(base=PHOTOS, batch=64, workers=8)),
        (50_000, 400, Machine(24, 8), dict(base=PHOTOS, batch=128)),
        (60_000, 96, H100, dict(base=SMALL, size=96)),
    ],
)
def test_choices(count, side, machine, expected):
    plan = Plan.choose(folder(count, side), machine)
    assert {key: getattr(plan, key) for key in expected} == expected
    # The queue holds no image twice.
    assert plan.queue < count and plan.batch >= 8


@pytest.mark.parametrize('count', [32, 63, 64, 100_000])
@pytest.mark.parametrize('side', [32, 400])
def test_a_split_of_batch_norm_has_two_images(tmp_path, count, side):
    images = folder(count, side)
    plan = Plan.choose(images, H100)
    path = tmp_path / 'config.py'
    path.write_text(plan.config(tmp_path, images, None))
    cfg = Config.fromfile(path)
    norm = cfg.model.backbone.norm_cfg
    assert norm.type == 'SplitBatchNorm' and norm.num_splits >= 4
    assert cfg.train_dataloader.batch_size >= 2 * norm.num_splits
    assert cfg.model.backbone.depth == (18 if side == 32 else 50)


def test_neighbours_are_fewer_than_the_labels():
    images = folder(400, 32)
    few = replace(images, labels=[0, 1] * 4 + [-1] * 392)
    assert Plan.choose(images, CPU).neighbours == 10
    assert Plan.choose(few, CPU).neighbours == 2


def test_too_few_images():
    with pytest.raises(ValueError, match='images has 31 .* at least 32'):
        Plan.choose(folder(31, 32), CPU)


@pytest.mark.parametrize('side', [32, 400])
@pytest.mark.parametrize('classes', [0, 2])
def test_the_config_inherits_what_it_does_not_name(tmp_path, side, classes):
    images = folder(400, side, classes)
    plan = Plan.choose(images, H100, epochs=30)
    val = images.subset(range(4)) if classes else None
    path = tmp_path / 'config.py'
    path.write_text(plan.config(tmp_path, images, val))
    cfg = Config.fromfile(path)
    assert cfg.train_cfg.max_epochs == 30
    assert cfg.train_cfg.val_interval == 3
    steps = 30 * (400 // cfg.train_dataloader.batch_size)
    assert f'length      30 epochs, {steps} steps' in plan.lines(images, val)
    assert cfg.train_dataloader.dataset.dataset.label_ratio == min(classes, 1)
    assert cfg.model.type == 'UniMoCo'
    assert cfg.model.head.queue_len == plan.queue
    loss = dict(type='UniConLoss', own_key_weight='balanced')
    assert cfg.model.head.loss == loss
    dataset = cfg.train_dataloader.dataset.dataset.dataset
    assert dataset.ann_file == str(tmp_path / 'train.txt')
    assert dataset.pipeline[0].type == 'LoadTwoCrops'
    assert dataset.pipeline[0].scale == plan.size
    if classes:
        bank = cfg.val_cfg.bank_dataloader.dataset
        assert cfg.val_dataloader.dataset.ann_file.endswith('val.txt')
        assert bank.ann_file == dataset.ann_file
        assert bank.pipeline == cfg.val_dataloader.dataset.pipeline
        assert '_delete_' not in cfg.pretty_text
    else:
        assert cfg.val_dataloader is None and 'classes' not in dataset
