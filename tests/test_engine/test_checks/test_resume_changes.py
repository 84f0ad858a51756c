"""Resuming with a changed config, and training longer."""

import json
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from exact_runs import TRAIN, newest_log, run, write_config
from mmengine.config import Config

from mmunimoco.engine.checks.resume_changes import (
    changed_fields,
    check_resumed_config,
    without_effect,
)
from mmunimoco.engine.schedules import ExtendScheduleHook, extend_config


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A run of two epochs: its config, and its last checkpoint."""
    folder = tmp_path_factory.mktemp('finished')
    config = write_config(folder, 1, 'interval=1', SHORT)
    assert run(TRAIN, config, '--work-dir', folder / 'work') == 0
    return config, folder / 'work/epoch_2.pth'


SHORT = """
val_cfg = None
val_dataloader = None
val_evaluator = None
default_hooks = dict(checkpoint=dict(save_best=None))
"""


def resume(finished, work_dir, *options):
    config, checkpoint = finished
    command = TRAIN, config, '--work-dir', work_dir, '--resume', checkpoint
    status = run(*command, *options)
    return status, newest_log(work_dir)


def learning_rates(work_dir):
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    lines = map(json.loads, path.read_text().splitlines())
    return {x['step']: x['lr'] for x in lines if 'lr' in x}


def test_what_has_an_effect_is_listed_and_a_finished_run_says_so(
    tmp_path, finished
):
    options = 'model.head.temperature=0.1', 'train_dataloader.num_workers=0'
    options = '--cfg-options', *options
    status, log = resume(finished, tmp_path, *options)
    assert status == 0
    assert 'from here on:\n    model.head.temperature: 0.2 -> 0.1\n' in log
    assert 'num_workers:' not in log.partition('has changed')[2]
    assert 'the checkpoint is at the end of its 2 epochs' in log


def test_what_would_have_no_effect_stops_the_run(tmp_path, finished):
    options = '--cfg-options', 'optim_wrapper.optimizer.lr=0.5'
    status, _ = resume(finished, tmp_path, *options)
    assert status != 0 and not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize(
    ('field', 'old', 'new'),
    [
        ('optim_wrapper.optimizer.lr', 0.3, 0.5),
        ('optim_wrapper.paramwise_cfg.norm_decay_mult', 0, 1),
        ('param_scheduler.0.T_max', 200, 400),
        ('train_cfg.max_epochs', 200, 400),
    ],
)
def test_the_refusal_names_the_field_and_what_to_do(field, old, new):
    cfg = Config(
        dict(
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.3),
                paramwise_cfg=dict(norm_decay_mult=0),
            ),
            param_scheduler=[dict(COSINE, T_max=200)],
            train_cfg=dict(max_epochs=200),
        )
    )
    before = cfg.pretty_text
    cfg.merge_from_dict({field: new})
    loop = SimpleNamespace(max_iters=10)
    runner = SimpleNamespace(cfg=cfg, hooks=[], train_loop=loop)
    message = rf'{field}(: {old} -> {new}| is {new}, .* for {old})'
    message += '.*give tools/train.py of mmunimoco --resume --extend-to'
    with pytest.raises(ValueError, match=f'(?s){message}'):
        check_resumed_config(runner, dict(cfg=before))


def test_extended_run_is_on_the_schedule_of_the_longer_one(tmp_path, finished):
    status, log = resume(finished, tmp_path / 'a', '--extend-to', 4)
    assert status == 0 and 'extended to 4 epochs, 28 iterations' in log
    config = finished[0]
    longer = '--cfg-options', 'train_cfg.max_epochs=4'
    assert run(TRAIN, config, '--work-dir', tmp_path / 'b', *longer) == 0
    extended = learning_rates(tmp_path / 'a')
    assert min(extended) > 14 and max(extended) == 27
    expected = learning_rates(tmp_path / 'b')
    assert extended == pytest.approx({x: expected[x] for x in extended})


COSINE = dict(type='CosineAnnealingLR', T_max=190, begin=10, end=200)
WARM_UP = dict(type='LinearLR', start_factor=0.1, begin=0, end=10)
RESTARTS = dict(type='CosineRestartLR', restart_weights=[1, 1], begin=10)


@pytest.mark.parametrize(
    ('schedule', 'expected'),
    [
        ([COSINE], [dict(COSINE, T_max=399, begin=21, end=420)]),
        (
            [WARM_UP, COSINE],
            [WARM_UP, dict(COSINE, T_max=410, begin=10, end=420)],
        ),
        (
            dict(type='MultiStepLR', milestones=[120, 160]),
            dict(type='MultiStepLR', milestones=[252, 336]),
        ),
        ([dict(type='CosineAnnealingLR')], [dict(type='CosineAnnealingLR')]),
        (
            [dict(type='StepLR', step_size=60)],
            [dict(type='StepLR', step_size=126)],
        ),
        (
            [dict(type='OneCycleLR', eta_max=1, total_steps=200)],
            [dict(type='OneCycleLR', eta_max=1, total_steps=420)],
        ),
        (
            [WARM_UP, dict(RESTARTS, periods=[50, 140])],
            [WARM_UP, dict(RESTARTS, periods=[108, 302])],
        ),
    ],
)
def test_stretched_schedules(schedule, expected):
    train = dict(max_epochs=200)
    cfg = Config(dict(train_cfg=train, resume=True, param_scheduler=schedule))
    cfg = extend_config(cfg, 420).to_dict()
    assert cfg['train_cfg'] == dict(max_epochs=420)
    assert cfg['param_scheduler'] == expected


def test_a_stretched_schedule_is_no_change_without_effect():
    """The hook that is added with it builds the schedule anew."""
    cfg = dict(train_cfg=dict(max_epochs=200), resume=True)
    cfg = Config(dict(cfg, param_scheduler=[COSINE]))
    before = cfg.pretty_text
    runner = Mock(cfg=extend_config(cfg, 420), hooks=[ExtendScheduleHook()])
    check_resumed_config(runner, dict(cfg=before, epoch=200))
    (text,) = runner.logger.warning.call_args.args
    assert 'param_scheduler.0.T_max: 190 -> 399' in text


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(resume=False), 'give --resume'),
        (dict(train_cfg=dict(max_epochs=420)), 'are not longer'),
        (dict(train_cfg=dict(max_iters=20)), 'by_epoch=False'),
    ],
)
def test_what_cannot_be_extended(change, message):
    cfg = dict(train_cfg=dict(max_epochs=200), resume=True)
    cfg['param_scheduler'] = [COSINE]
    with pytest.raises(ValueError, match=message):
        extend_config(Config({**cfg, **change}), 420)


@pytest.mark.parametrize('epoch', [2, 3, 4])
def test_an_extended_run_that_was_stopped_is_not_finished(epoch):
    """The config, which stays as it was, has the length from before."""
    cfg = Config(dict(train_cfg=dict(max_epochs=2)))
    extended = Config(dict(train_cfg=dict(max_epochs=4)))
    loop = SimpleNamespace(max_iters=14)
    runner = SimpleNamespace(cfg=cfg, hooks=[], train_loop=loop, logger=Mock())
    meta = dict(cfg=extended.pretty_text, epoch=epoch, iter=7 * epoch)
    if epoch == 4:
        check_resumed_config(runner, meta)
        return
    with pytest.raises(ValueError, match=f'has done {epoch}.*--extend-to 4'):
        check_resumed_config(runner, meta)


@pytest.mark.parametrize(('epoch', 'said'), [(2, False), (4, True)])
def test_finished_is_counted_in_epochs(epoch, said):
    """Of a run with larger batches, iterations would be more than it has."""
    cfg = Config(dict(train_cfg=dict(max_epochs=4)))
    logger = Mock()
    runner = SimpleNamespace(
        cfg=cfg,
        hooks=[],
        logger=logger,
        train_loop=SimpleNamespace(max_iters=28),
    )
    meta = dict(cfg=cfg.pretty_text, epoch=epoch, iter=14 * epoch)
    check_resumed_config(runner, meta)
    assert logger.warning.called == said


def test_changes_by_field():
    before = (
        "model = dict(a=(1, 2), backbone=dict(init_cfg=dict(checkpoint='x')))"
        "\ncustom_hooks = [dict(type='EMAHook'), dict(type='PreflightHook')]"
        "\nparam_scheduler = [dict(type='StepLR', step_size=2)]\nother = 1"
        "\ntrain_dataloader = dict(dataset=dict(data_root='a', label_ratio=0))"
    )
    now = (
        "model = dict(a=[1, 2], backbone=dict(init_cfg=dict(checkpoint='y')))"
        "\ncustom_hooks = [dict(type='CollapseHook', threshold=0.1)]"
        "\nparam_scheduler = [dict(type='StepLR', step_size=3)]\nother = 2"
        "\ntrain_dataloader = dict(dataset=dict(data_root='b', label_ratio=1))"
    )
    changes = changed_fields(before, now)
    assert changes == {
        'train_dataloader.dataset.label_ratio': (0, 1),
        'custom_hooks.EMAHook.type': ('EMAHook', 'not set'),
        'custom_hooks.CollapseHook.type': ('not set', 'CollapseHook'),
        'custom_hooks.CollapseHook.threshold': ('not set', 0.1),
        'param_scheduler.0.step_size': (2, 3),
    }
    assert without_effect(changes) == ['param_scheduler.0.step_size']
