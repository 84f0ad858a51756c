"""Schedules in iterations, scaled to another number of images a step."""

import math
import re

import pytest
from mmengine.config import Config

from mmunimoco.engine.schedules import (
    as_text,
    options_of_command,
    scaled_options,
)

# As VOC's of detection, with the warm-up of ADE20K's.
ITERATIONS = """
train_dataloader = dict(batch_size=2)
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=24000, val_interval=3000)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, begin=0, end=1500),
    dict(type='MultiStepLR', by_epoch=False, begin=1500, end=24000,
         milestones=[18000, 22000]),
]
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3000))
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""
EPOCHS = """
train_dataloader = dict(batch_size=2)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11]),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""


@pytest.fixture
def config(tmp_path):
    def write(text=ITERATIONS):
        (tmp_path / 'config.py').write_text(text)
        return str(tmp_path / 'config.py')

    return write


def _counts(cfg):
    """Everything that counts iterations."""
    warmup, steps = cfg.param_scheduler
    return [
        cfg.train_cfg.max_iters,
        cfg.train_cfg.val_interval,
        warmup.end,
        steps.begin,
        steps.end,
        *steps.milestones,
        cfg.default_hooks.checkpoint.interval,
    ]


@pytest.mark.parametrize('batch_size', [1, 2, 4, 8, 32, 48])
def test_as_many_images_are_seen(config, batch_size):
    intended = [16 * n for n in _counts(Config.fromfile(config()))]
    cfg = Config.fromfile(config())
    cfg.merge_from_dict(scaled_options(cfg, batch_size))
    seen = [batch_size * n for n in _counts(cfg)]
    assert seen == pytest.approx(intended, abs=batch_size / 2)
    assert cfg.param_scheduler[0].begin == 0


@pytest.mark.parametrize(
    ('text', 'batch_size'),
    [
        (ITERATIONS, 16),
        (EPOCHS, 2),
        (ITERATIONS.replace('auto_scale_lr', 'other'), 2),
        (ITERATIONS.replace('enable=False', 'schedule=True'), 2),
    ],
)
def test_nothing_to_scale(config, text, batch_size):
    assert scaled_options(Config.fromfile(config(text)), batch_size) == {}


def test_single_scheduler_and_infinite_intervals(config):
    one = 'dict(type="PolyLR", by_epoch=False, end=24000)'
    text = re.sub(r'(?s)(param_scheduler = ).*?\n\]', rf'\1{one}', ITERATIONS)
    text = text.replace('interval=3000))', 'interval=-1))')
    cfg = Config.fromfile(config(text))
    cfg.train_cfg.val_interval = math.inf
    assert scaled_options(cfg, 8) == {
        'train_cfg.max_iters': 48000,
        'train_cfg.val_interval': math.inf,
        'default_hooks.checkpoint.interval': -1,
        'param_scheduler.end': 48000,
    }


@pytest.mark.parametrize(
    ('scheduler', 'scaled'),
    [
        (dict(type='StepLR', step_size=8000), {'step_size': 16000}),
        (dict(type='OneCycleLR', total_steps=24000), {'total_steps': 48000}),
        (
            dict(type='CosineRestartLR', periods=[4000, 20000]),
            {'periods': [8000, 40000]},
        ),
    ],
)
def test_lengths_within_a_schedule(config, scheduler, scaled):
    cfg = Config.fromfile(config())
    cfg.param_scheduler = [dict(scheduler, by_epoch=False)]
    options = scaled_options(cfg, 8)
    name = 'param_scheduler.0.'
    assert scaled == {
        key.removeprefix(name): value
        for key, value in options.items()
        if key.startswith(name)
    }


def test_command_of_one_gpu(config):
    options = options_of_command(config(), 1, ['--amp', '--auto-scale-lr'])
    assert as_text(options) == (
        'train_cfg.max_iters=192000 train_cfg.val_interval=24000 '
        'default_hooks.checkpoint.interval=24000 param_scheduler.0.end=12000 '
        'param_scheduler.1.begin=12000 param_scheduler.1.end=192000 '
        'param_scheduler.1.milestones=144000,176000 '
        'auto_scale_lr.schedule=True'
    )


def test_options_of_the_user_take_precedence(config):
    given = ['--cfg-options', 'train_dataloader.batch_size=4']
    given += ['train_cfg.val_interval=7']
    options = options_of_command(config(), 1, ['--auto-scale-lr', *given])
    assert options['train_cfg.max_iters'] == 96000
    assert 'train_cfg.val_interval' not in options


@pytest.mark.parametrize('arguments', [[], ['--cfg-options', 'a=1']])
def test_only_with_auto_scale_lr(config, arguments):
    assert options_of_command(config(), 1, arguments) == {}
    assert options_of_command(config(), 8, ['--auto-scale-lr']) == {}
