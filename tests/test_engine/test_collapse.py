"""A collapse of the keys is logged and warned about."""

import json
import logging
import math
import re
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from exact_runs import TRAIN, newest_log, run, write_config
from mmengine.logging import MessageHub
from mmpretrain.registry import MODELS
from noise_runs import noise_runner
from small_unimoco import build_unimoco, unimoco_config
from torch.nn import functional

from mmunimoco.engine import CollapseHook, collapse, logs
from mmunimoco.engine.collapse import BASELINE, feature_std, verdict
from mmunimoco.engine.knn_loop import KNNValLoop


def test_spread_of_known_features():
    sphere = functional.normalize(torch.randn(20000, 16), dim=1)
    assert feature_std(sphere).item() == pytest.approx(1, abs=0.01)
    assert feature_std(sphere[:1].expand(50, 16)).item() == 0
    # Two opposite points on one axis of 16: 1 there, 0 elsewhere, times 4.
    poles = torch.zeros(50, 16)
    poles[:25, 0], poles[25:, 0] = 1, -1
    assert feature_std(poles).item() == pytest.approx(4 / 16)
    expected = sphere[:40].double().numpy().std(axis=0).mean() * 4
    assert feature_std(sphere[:40]).item() == pytest.approx(expected, rel=1e-5)
    assert feature_std(sphere.half()).dtype == torch.float32


def scalars(folder):
    (path,) = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_collapse_is_logged_and_warned_about_once(tmp_path, log_of):
    """A neck that maps every image to one point, by its bias."""
    hooks = [dict(type='CollapseHook', threshold=0.3)]
    runner = noise_runner(tmp_path, hooks=hooks, log_level='INFO', epochs=2)
    wrapper = runner.model.neck.mlp[2]
    with torch.no_grad():
        wrapper.weight.zero_()
        wrapper.bias.fill_(1)
    runner.model._is_init = True
    runner.train()
    lines = [x for x in scalars(tmp_path) if 'feature_std' in x]
    values = [line['feature_std'] for line in lines]
    # Queue of 32: random keys at first, overwritten after 8 steps of 4.
    assert [line['step'] for line in lines] == [4, 8, 12, 16, 20, 24]
    assert values[0] > 0.5 and values[-1] < 0.1
    text = log_of(tmp_path)
    assert text.count('The features collapse') == 1
    assert 'model.head.temperature' in text


def test_no_warning_about_keys_that_differ(tmp_path, log_of):
    hooks = [dict(type='CollapseHook', threshold=0.0)]
    runner = noise_runner(tmp_path, hooks=hooks)
    runner.train()
    (value,) = [
        x['feature_std'] for x in scalars(tmp_path) if x.get('step') == 4
    ]
    assert value > 0
    assert 'collapse' not in log_of(tmp_path)


def test_queue_of_one_key_has_no_spread(tmp_path, log_of):
    model = unimoco_config(head=dict(queue_len=1), data_preprocessor=dict())
    hooks = [dict(type='CollapseHook')]
    noise_runner(tmp_path, hooks=hooks, model=model).train()
    assert not any('feature_std' in line for line in scalars(tmp_path))
    assert 'collapse' not in log_of(tmp_path)


@pytest.mark.parametrize('threshold', [-0.1, 1])
def test_threshold_out_of_range(threshold):
    with pytest.raises(ValueError, match=r'CollapseHook\.threshold'):
        CollapseHook(threshold)


# Verdicts after validations.


def similarity(positive, negative):
    return dict(positive_similarity=positive, negative_similarity=negative)


@pytest.mark.parametrize(
    ('loss', 'knn', 'level', 'message'),
    [
        (14.2, 32.9, 'WARNING', 'STUCK.* 0.944, of negatives 0.934'),
        (14.2, 33.1, 'INFO', 'Learning, with features.* close together .*944'),
        (13.0, 20.0, 'WARNING', 'NO BETTER.*top1 20.0, before training 20.0'),
        (13.0, 40.0, 'INFO', r'Learning \(loss 13.000, 14.300 if'),
    ],
)
def test_verdicts(loss, knn, level, message):
    means = dict(loss=loss, **similarity(0.944, 0.934))
    baseline = {'knn/top1': 20.0, 'knn/top5': 60.0}
    got, text = verdict(
        means, 14.3, 0.25, {'knn/top1': knn}, baseline, {'knn/top1': 30.0}
    )
    assert logging.getLevelName(got) == level
    assert re.match(message, text)


@pytest.mark.parametrize(
    ('loss', 'message'), [(13.0, 'Learning'), (14.2, 'No verdict')]
)
def test_nothing_is_better_than_all(loss, message):
    knn = {'knn/top1': 100.0}
    level, text = verdict(dict(loss=loss), 14.3, 0.25, knn, knn, knn)
    assert level == logging.INFO and text.startswith(message)


def test_no_baseline_of_a_resumed_run_or_if_it_is_off(monkeypatch):
    loop = KNNValLoop.__new__(KNNValLoop)

    def measure(call_hooks):
        return {'knn/top1': 100 * torch.rand(()).item()}

    loop.measure = measure
    before = torch.get_rng_state()
    for baseline, iteration in ((True, 0), (True, 5), (False, 0)):
        hub = MessageHub.get_instance(f'baseline {baseline} {iteration}')
        runner = MagicMock(val_loop=loop, iter=iteration, message_hub=hub)
        CollapseHook(baseline=baseline).before_train_epoch(runner)
        measured = hub.get_info(BASELINE) is not None
        assert measured == (baseline and iteration == 0)
    # Training draws the same numbers with and without it.
    assert torch.equal(torch.get_rng_state(), before)


def test_a_second_collapse_is_a_second_warning(monkeypatch, log):
    monkeypatch.setattr(collapse, 'is_logged', lambda *_: True)
    hook, head = CollapseHook(threshold=0.5), build_unimoco().head
    spread = head.queue.clone()
    hub = MessageHub.get_instance('two collapses')
    model = SimpleNamespace(head=head)
    runner = SimpleNamespace(model=model, message_hub=hub, iter=7)
    for queue in (spread[:1], spread[:1], spread, spread[:1]):
        head.queue.copy_(queue.expand_as(head.queue))
        hook.after_train_iter(runner, 7)
    assert log.text.count('The features collapse') == 2


def verdict_of(loss, scores, log, steps=4, **options):
    """After validations, as mmengine keeps them, also in checkpoints."""
    hub = MessageHub.get_instance(f'scores {scores} {loss}')
    head = MODELS.build(
        dict(
            type='UniMoCoHead',
            feat_dim=4,
            queue_len=6,
            num_classes=2,
            loss=loss,
        )
    )
    # Six random keys last for two steps; the third was skipped.
    for value in (0.1, 0.1, math.nan, head.collapsed_loss().item()):
        hub.update_scalar('train/loss', value)
    for score in scores:
        hub.update_scalar('val/knn/top1', score)
    hub.update_info(BASELINE, {'knn/top1': 10.0})
    runner = SimpleNamespace(
        iter=steps,
        model=SimpleNamespace(head=head),
        message_hub=hub,
        cfg=dict(train_dataloader=dict(batch_size=3)),
    )
    hook = CollapseHook(**options)
    hook.before_train(SimpleNamespace(iter=0))
    hook.after_val_epoch(runner, {'knn/top1': scores[-1]})
    return log.messages[-1]


def test_the_least_gain_is_that_of_the_config(log):
    assert verdict_of(None, [33.1], log, min_gain=0).startswith('Learning (')


def test_a_verdict_is_of_the_steps_since_the_last_one(log):
    """Or since a resumed run began; they were better before."""
    hub = MessageHub.get_instance('verdicts')
    head = build_unimoco().head
    level = head.collapsed_loss().item()
    for value in (*[level - 3] * 20, *[level] * 20):
        hub.update_scalar('train/loss', value)
    runner = SimpleNamespace(
        iter=40,
        model=SimpleNamespace(head=head),
        message_hub=hub,
        cfg=dict(train_dataloader=dict(batch_size=4)),
    )
    resumed, hook = CollapseHook(), CollapseHook()
    resumed.before_train(SimpleNamespace(iter=20))
    hook.before_train(SimpleNamespace(iter=0))
    resumed.after_val_epoch(runner)
    assert log.messages[-1].startswith('STUCK')
    hook.after_val_epoch(runner)
    assert log.messages[-1].startswith('Learning')
    runner.iter = 60
    for _ in range(20):
        hub.update_scalar('train/loss', level)
    hook.after_val_epoch(runner)
    assert log.messages[-1].startswith('STUCK')


def test_random_keys_of_several_processes(log, monkeypatch):
    """Three keys of each fill the queue of six in one step."""
    assert verdict_of(None, [30.0], log, 2).startswith('No verdict yet')
    monkeypatch.setattr(logs, 'get_world_size', lambda: 2)
    assert verdict_of(None, [31.0], log, 2).startswith('STUCK')


@pytest.mark.parametrize(
    ('scores', 'message'),
    [
        ([30.0], 'STUCK'),
        ([30.0, 40.0, 32.9], 'STUCK'),
        ([30.0, 33.1], 'Learning, with features that lie close together'),
    ],
)
def test_validations_are_compared_with_the_first(scores, message, log):
    assert verdict_of(None, scores, log).startswith(message)


@pytest.mark.parametrize(
    ('loss', 'helps'),
    [
        (dict(type='UniConLoss'), True),
        (dict(type='UniConLoss', own_key_weight='balanced'), False),
        (dict(type='InfoNCELoss'), False),
    ],
)
@pytest.mark.parametrize('scores', [[30.0], [30.0, 33.1]])
def test_the_weight_is_named_where_it_can_help(loss, helps, scores, log):
    assert ('own_key_weight' in verdict_of(loss, scores, log)) == helps


@pytest.mark.parametrize('steps', [1, 2])
def test_no_verdict_on_random_keys(steps, log):
    assert verdict_of(None, [30.0], log, steps).startswith('No verdict yet')


def test_stuck_run_says_so_and_measures_a_baseline(tmp_path):
    """Momentum 0: the keys, of a constant network, never change."""
    config = write_config(tmp_path, 0, 'interval=9', STUCK)
    assert run(TRAIN, config, '--work-dir', tmp_path / 'work') == 0
    log = newest_log(tmp_path / 'work')
    assert log.count('Before the first step: knn/top1') == 1
    # Not misled by the random keys of the first steps.
    assert re.findall('Learning|STUCK|NO BETTER', log) == ['STUCK', 'STUCK']
    lines = scalars(tmp_path / 'work')
    steps = [line['step'] for line in lines if 'knn/top1' in line]
    assert steps == [0, 1, 2]
    # Nothing is resumed from the baseline, and it is measured only once.
    command = TRAIN, config, '--work-dir', tmp_path / 'work', '--resume'
    assert run(*command, '--extend-to', 3) == 0
    log = newest_log(tmp_path / 'work')
    assert 'Before the first step' not in log
    assert re.search(r'STUCK.*knn/top1 \d.*before training \d', log)


STUCK = """
optim_wrapper = dict(optimizer=dict(lr=1e-12))
model = dict(momentum=0.0)
model['neck'] = dict(init_cfg=[
    dict(type='Constant', layer='Linear', val=0.0, bias=1.0)])
# A matrix is no score: neither compared nor logged as one.
val_evaluator = [
    dict(type='ConfusionMatrix'),
    dict(type='Accuracy', topk=(1, 5), prefix='knn')]
"""
