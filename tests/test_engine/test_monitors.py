"""Monitors of the features: closed forms, a hand-written probe, real runs."""

import copy
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from ddp_helpers import run_ddp
from exact_runs import ROOT, TRAIN, run, write_config
from noise_runs import noise_runner
from small_unimoco import (
    build_unimoco,
    compute_loss,
    draw_batches,
    unimoco_config,
)
from torch.nn import functional

from mmunimoco.engine import FeatureMonitorHook, OnlineProbeHook, monitors
from mmunimoco.engine.monitors import (
    class_entropy,
    effective_rank,
    newest_keys,
    queue_age,
    uniformity,
)
from mmunimoco.models.labels import SampleLabels


def test_uniformity_of_known_features():
    assert uniformity(torch.ones(5, 1)).item() == pytest.approx(0, abs=1e-6)
    # Squared distances: 4 between poles, 2 between orthogonal features.
    assert uniformity(torch.tensor([[1.0], [-1.0]])).item() == -8
    assert uniformity(torch.eye(6)).item() == pytest.approx(-4)


def test_rank_of_known_features():
    assert effective_rank(torch.eye(6)).item() == pytest.approx(6)
    same = torch.ones(9, 6, dtype=torch.float64)
    assert effective_rank(same).item() == pytest.approx(1)
    # Singular values 3 and 1.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    found = effective_rank(torch.diag(torch.tensor([3.0, 1.0, 0.0]))).item()
    assert found == pytest.approx(math.exp(entropy))


def test_entropy_of_known_classes():
    labels = torch.tensor([4, 4, 9, 9, -1, -1, -1])
    assert class_entropy(labels).item() == pytest.approx(math.log(2))
    hot = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 0, 0]]).bool()
    wanted = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert class_entropy(hot).item() == pytest.approx(wanted)


def test_age_and_newest_keys():
    assert queue_age(10, 4, 1) == 0
    assert queue_age(10, 4, 100) == pytest.approx((0 * 4 + 1 * 4 + 2 * 2) / 10)
    head = SimpleNamespace(
        queue=torch.arange(5)[:, None],
        queue_ptr=torch.tensor([2]),
        queue_len=5,
    )
    assert newest_keys(head, 3).flatten().tolist() == [1, 0, 4]
    assert newest_keys(head, 9).flatten().tolist() == [1, 0, 4, 3, 2]


def logged(folder):
    (path,) = folder.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line['step']: line for line in lines if 'loss' in line}


def test_monitors_of_a_run_whose_features_are_all_the_same(tmp_path):
    hooks = [dict(type='FeatureMonitorHook')]
    frozen = dict(optimizer=dict(type='SGD', lr=1e-9))
    runner = noise_runner(
        tmp_path, hooks=hooks, epochs=2, optim_wrapper=frozen
    )
    last = runner.model.neck.mlp[2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(1)
    runner.model._is_init = True
    runner.train()
    lines = logged(tmp_path)
    assert list(lines) == [4, 8, 12, 16, 20, 24]  # what the LoggerHook logs
    first, line = lines[4], lines[24]
    # Half of the queue of 32 still holds the random keys of the start.
    assert first['rankme'] > 4 and first['uniformity'] < -0.5
    assert line['alignment_labeled'] == pytest.approx(0, abs=1e-3)
    assert line['uniformity'] == pytest.approx(0, abs=1e-3)
    assert line['rankme'] == pytest.approx(1, abs=0.05)
    # Classes in turn; 32 keys of 8 batches; far below the random start.
    assert line['queue_class_entropy'] == pytest.approx(math.log(3), abs=0.01)
    assert first['queue_age'] == 1.5 and line['queue_age'] == 3.5
    assert line['collapse_gain'] == pytest.approx(0, abs=0.1)
    assert line['collapse_gain_labeled'] == line['collapse_gain']
    assert 'alignment_unlabeled' not in line  # there are none
    assert runner.model.head.observers == []


def start_monitor(model):
    """Let a monitor measure every batch."""
    hook, runner = FeatureMonitorHook(), SimpleNamespace(model=model)
    hook.before_train(runner)
    hook._wanted = True
    model.encoder_k.steps.fill_(1)  # as in a run
    return hook, runner


def unit_vectors(count):
    return functional.normalize(torch.randn(count, 16), dim=1)


@pytest.mark.parametrize('streamed', [True, False])
def test_values_are_split_by_labels(streamed):
    """Against a loop over pairs, with the queue as it was before the step."""
    model = build_unimoco(streamed=streamed)
    head, labels = model.head, [1, -1, 0, -1]
    head.label_queue[::2], head.label_queue[1::4] = 1, 0
    query, key = unit_vectors(4), unit_vectors(4)
    wanted = {}
    for i, label in enumerate(labels):
        same = (head.label_queue == label) & (label != -1)
        similar = head.queue @ query[i]
        own = (query[i] @ key[i])[None]
        positive, negative = torch.cat([own, similar[same]]), similar[~same]
        loss = torch.log1p(
            (negative / head.temperature).exp().sum()
            * (-positive / head.temperature).exp().sum()
        )
        collapsed = math.log(1 + len(positive) * len(negative))
        group = wanted.setdefault('unlabeled' if label < 0 else 'labeled', [])
        distance = (query[i] - key[i]).square().sum()
        group.append((distance, collapsed - loss, positive, negative))
    hook, runner = start_monitor(model)
    losses = head.loss(query, key, torch.tensor(labels))
    values = hook.measure(runner)
    gains = []
    for name, group in wanted.items():
        distances, gain, positive, negative = zip(*group, strict=True)
        gains += gain
        for value, expected in dict(
            alignment=sum(distances) / 2,
            collapse_gain=sum(gain) / 2,
            positive_similarity=torch.cat(positive).mean(),
            negative_similarity=torch.cat(negative).mean(),
        ).items():
            found = values[f'{value}_{name}'].item()
            assert found == pytest.approx(expected.item(), abs=1e-5), value
    found = values['collapse_gain'].item()
    assert found == pytest.approx(sum(gains).item() / 4, abs=1e-5)
    assert losses['loss'].requires_grad is False
    assert hook.measure(runner) == {}  # nothing since then


def test_groups_that_are_not_there_are_not_logged():
    model = build_unimoco()
    hook, runner = start_monitor(model)
    for labels, missing in (([-1, -1], '_labeled'), ([0, 1], '_unlabeled')):
        model.head.loss(unit_vectors(2), unit_vectors(2), torch.tensor(labels))
        values = hook.measure(runner)
        assert not any(name.endswith(missing) for name in values)
        assert all(math.isfinite(value) for value in values.values())


class ScalarLoss(torch.nn.Module):
    """Returns no loss of each query."""

    def forward(self, logits, positives):
        return functional.cross_entropy(logits, positives.long().argmax(1))


def test_a_loss_that_is_not_known_of_each_query_is_not_split():
    model = build_unimoco()
    model.head.loss_module = ScalarLoss()
    hook, runner = start_monitor(model)
    labels = torch.tensor([0, -1, 1])
    loss = model.head.loss(unit_vectors(3), unit_vectors(3), labels)['loss']
    values = hook.measure(runner)
    wanted = math.log(1 + model.head.queue_len) - loss.item()
    assert values['collapse_gain'].item() == pytest.approx(wanted, abs=1e-5)
    assert 'collapse_gain_labeled' not in values
    assert 'positive_similarity_labeled' in values


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(in_batch_positives=True),
        dict(label_warmup=4),
        dict(exclude_own_keys=True),
    ],
)
@pytest.mark.parametrize('labels', [[0, 0, 1], [0, -1, 1], [-1, -1, -1]])
def test_features_that_are_all_the_same_gain_nothing(labels, options):
    """Whatever the labels of batch and queue, and whoever uses them."""
    model = build_unimoco(**options)
    hook, runner = start_monitor(model)
    feature = functional.normalize(torch.ones(3, 16), dim=1)
    model.head.queue.copy_(feature[:1].expand_as(model.head.queue))
    model.head.label_queue[::2] = 1
    if options.get('exclude_own_keys'):
        model.head.index_queue[::3] = 5
    samples = SampleLabels(
        torch.tensor(labels),
        indices=torch.tensor([4, 5, 6]),
        has_labels=max(labels) >= 0,
        has_unlabeled=min(labels) < 0,
    )
    for _ in range(3):  # of the warm-up
        model.head.loss(feature, feature, samples)
        gains = [v for n, v in hook.measure(runner).items() if 'gain' in n]
        assert len(gains) >= 2
        assert gains == pytest.approx([0] * len(gains), abs=1e-4)


def test_age_of_the_keys_of_two_processes(monkeypatch):
    """Each step enqueues three keys of either: 32 keys of six steps."""
    monkeypatch.setattr(monitors, 'get_world_size', lambda: 2)
    model = build_unimoco()
    hook, runner = start_monitor(model)
    model.head.loss(unit_vectors(3), unit_vectors(3), torch.tensor([0, 1, 2]))
    model.encoder_k.steps.fill_(100)
    values = hook.measure(runner)
    ages = [age for age in range(6) for _ in range(6)][:32]
    assert values['queue_age'] == pytest.approx(sum(ages) / 32)


def start_probe(model, **options):
    """Attach a probe to a model as a runner does."""
    hook = OnlineProbeHook(**options)
    loader = SimpleNamespace(dataset=None)
    hook.before_train(SimpleNamespace(model=model, train_dataloader=loader))
    return hook


def test_probe_equals_a_classifier_trained_by_hand():
    model = build_unimoco()
    sgd = dict(type='SGD', lr=0.5, momentum=0.9)
    hook = start_probe(model, num_classes=3, optimizer=sgd)
    probe = torch.nn.Linear(64, 3)
    for parameter in probe.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.5, momentum=0.9)
    hits = count = 0
    for views, labels in draw_batches(steps=5, n=8):
        backbone = copy.deepcopy(model.backbone)
        backbone._forward_hooks.clear()
        known = labels >= 0
        features = backbone(views[0])[-1].mean((2, 3)).detach()[known]
        logits = probe(features)
        hits += (logits.argmax(1) == labels[known]).sum().item()
        count += int(known.sum())
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels[known]).backward()
        optimizer.step()
        compute_loss(model, views, labels)['loss'].backward()
        assert all(p.grad is not None for p in model.neck.parameters())
        torch.testing.assert_close(hook.probe.weight.data, probe.weight.data)
    values = hook.measure(None)
    assert values['probe_top1'] == pytest.approx(100 * hits / count)
    assert hook.measure(None) == {}  # nothing since then


def test_probe_learns_and_leaves_the_training_alone(tmp_path):
    states, hooks = [], [dict(type='OnlineProbeHook', num_classes=3)]
    for name, custom in (('with', hooks), ('without', [])):
        runner = noise_runner(tmp_path / name, hooks=custom, epochs=2)
        runner.train()
        states.append(runner.model.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    values = [x['probe_top1'] for x in logged(tmp_path / 'with').values()]
    assert len(values) == 6 and all(0 <= x <= 100 for x in values)


def test_probe_goes_on_after_a_resume(tmp_path):
    def train(folder, **options):
        # Saved in the middle of what a log line counts.
        runner = noise_runner(
            folder,
            hooks=[dict(type='OnlineProbeHook', num_classes=3)],
            train_cfg=dict(type='ExactEpochLoop', max_epochs=2),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=4),
                checkpoint=dict(
                    type='ExactCheckpointHook', interval=10, by_epoch=False
                ),
            ),
            **options,
        )
        runner.train()
        (hook,) = (h for h in runner.hooks if isinstance(h, OnlineProbeHook))
        return hook.state_dict(), logged(folder)

    whole, lines = train(tmp_path / 'whole')
    start = str(tmp_path / 'whole/iter_10.pth')
    again, rest = train(tmp_path / 'again', load_from=start, resume=True)
    assert torch.equal(whole['probe']['weight'], again['probe']['weight'])
    assert whole['probe']['weight'].norm() > 0
    moments = (x['optimizer']['state'][0]['exp_avg'] for x in (whole, again))
    assert torch.equal(*moments)
    for step, line in rest.items():
        assert line['probe_top1'] == lines[step]['probe_top1']
    assert list(rest) == [12, 16, 20, 24]


def test_probe_that_is_saved_before_its_first_batch_keeps_its_state():
    """A resumed run may validate, and save, before it trains."""
    first, second = (OnlineProbeHook(num_classes=3) for _ in 'ab')
    first._features = torch.randn(2, 5)
    first.observe(None, None, SampleLabels(torch.tensor([0, 2])), [])
    state = first.state_dict()
    second.load_state_dict(state)
    assert second.state_dict() is state


def probe_features(rank, world_size, batches, sizes):
    """Weights of a probe that is fed with features directly."""
    hook = OnlineProbeHook(num_classes=3)
    for features, labels in batches:
        hook._features = features.split(sizes)[rank]
        share = SampleLabels(labels.split(sizes)[rank])
        hook.observe(None, None, share, [])
    return hook.probe.weight.data, hook.measure(None)


def test_processes_train_one_probe(tmp_path):
    """Uneven, and at first with all labels on one of them."""
    batches = []
    for step in range(4):
        labels = torch.randint(-1, 3, (7,))
        labels[5:] = -1 if step == 0 else 1
        batches.append((torch.randn(7, 5), labels))
    weight, values = probe_features(0, 1, batches, [7])
    ranks = run_ddp(probe_features, 2, tmp_path, batches, [5, 2])
    for found, logs in ranks:
        torch.testing.assert_close(found, weight)
        assert logs == values
    assert torch.equal(ranks[0][0], ranks[1][0])


def test_features_that_are_not_finite_do_not_spoil_the_probe():
    features, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    features[2] = float('nan')
    weights = [
        probe_features(0, 1, [(x, y)], [len(x)])[0]
        for x, y in (
            (features, labels),
            (features[[0, 1, 3]], labels[[0, 1, 3]]),
        )
    ]
    torch.testing.assert_close(*weights)
    assert weights[0].isfinite().all() and weights[0].norm() > 0


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='num_keys must be an integer of 2'):
        FeatureMonitorHook(num_keys=1)
    multi = build_unimoco(multi_label=True, num_classes=3)
    with pytest.raises(ValueError, match='one label an image'):
        start_probe(multi)
    with pytest.raises(ValueError, match=r'num_classes is None.*unknown'):
        start_probe(build_unimoco())
    with pytest.raises(ValueError, match=r'num_classes is 2.*\(3 by'):
        start_probe(build_unimoco(num_classes=3), num_classes=2)
    assert start_probe(build_unimoco(num_classes=3)).num_classes == 3
    batch = [(torch.randn(2, 5), torch.tensor([0, 5]))]
    with pytest.raises(ValueError, match='a label is 5.*num_classes is 3'):
        probe_features(0, 1, batch, [2])


def test_the_documented_config_runs(tmp_path):
    text = (ROOT / 'docs/evaluation.md').read_text(encoding='utf-8')
    (snippet,) = re.findall(r'(custom_hooks = \[\n.*?\n\])', text, re.DOTALL)
    config = write_config(tmp_path, 0, 'interval=9', snippet)
    assert run(TRAIN, config, '--work-dir', tmp_path / 'work') == 0
    lines = logged(tmp_path / 'work')
    # 10 % of 100 images are labeled.
    assert any('probe_top1' in line for line in lines.values())
    assert all(1 < line['rankme'] <= 128 for line in lines.values())
    # The hooks of the runtime are still there.
    assert all('feature_std' in line for line in lines.values())


def test_other_models_are_left_alone(tmp_path):
    """The hooks may stand in a runtime that other models share."""
    hooks = [dict(type='FeatureMonitorHook'), dict(type='OnlineProbeHook')]
    head = dict(type='ContrastiveHead', temperature=0.2)
    head['loss'] = dict(type='CrossEntropyLoss')
    model = unimoco_config(data_preprocessor={}) | dict(
        type='SimCLR', head=head
    )
    del model['momentum']
    runner = noise_runner(tmp_path, hooks=hooks, model=model)
    runner.train()
    assert not any('rankme' in line for line in logged(tmp_path).values())
