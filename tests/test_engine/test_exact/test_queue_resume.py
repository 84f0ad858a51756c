"""Queues of another length, or without labels, are fitted to the head."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import ExponentialMovingAverage
from noise_runs import Noise, noise_runner
from small_unimoco import DIM, QUEUE_LEN, build_unimoco, unimoco_config

from mmunimoco.engine.exact.queue_resume import QueueResumeHook, fit_queues


def queues(length, pointer=0, labels=True):
    """Keys whose first entry is the order of their arrival."""
    age = torch.arange(length).roll(pointer)
    result = dict(
        queue=age.float()[:, None].repeat(1, 2),
        queue_ptr=torch.tensor([pointer]),
    )
    if labels:
        result['label_queue'] = age + 100
    return result


def test_the_same_length_is_unchanged():
    stored = queues(6, 4)
    fitted, notes = fit_queues(stored, queues(6))
    assert notes == []
    assert all(torch.equal(fitted[name], stored[name]) for name in stored)


def test_a_shorter_queue_keeps_the_newest():
    fitted, (note,) = fit_queues(queues(6, 4), queues(4))
    assert fitted['queue'][:, 0].tolist() == [2, 3, 4, 5]
    assert fitted['label_queue'].tolist() == [102, 103, 104, 105]
    assert fitted['queue_ptr'].tolist() == [0]  # over the oldest
    assert 'newest 4 of 6' in note


def test_a_longer_queue_is_filled_up():
    own = queues(6)
    own['queue'] = own['queue'] - 50
    fitted, (note,) = fit_queues(queues(4, 1), own)
    assert fitted['queue'][:, 0].tolist() == [-50, -49, 0, 1, 2, 3]
    assert fitted['label_queue'].tolist() == [-1, -1, 100, 101, 102, 103]
    assert fitted['queue_ptr'].tolist() == [0]
    assert 'random unlabeled ones fill them up to 6' in note


def test_rows_of_another_shape_are_refused():
    own = queues(4)
    own['queue'] = torch.zeros(4, 3)
    with pytest.raises(ValueError, match='feat_dim'):
        fit_queues(queues(4), own)


def test_moco_of_mmpretrain_continues(log):
    model = build_unimoco()
    state = model.state_dict()
    moco = {k: v for k, v in state.items() if not k.startswith('head.')}
    keys = torch.nn.functional.normalize(torch.randn(QUEUE_LEN, DIM))
    moco.update(queue=keys.T, queue_ptr=torch.tensor([3]))
    averaged = {f'module.{k}': v for k, v in moco.items()}
    averaged['steps'] = torch.tensor(5)
    checkpoint = dict(state_dict=moco, ema_state_dict=averaged)
    runner = SimpleNamespace(model=model)
    QueueResumeHook().after_load_checkpoint(runner, checkpoint)
    model.load_state_dict(checkpoint['state_dict'])
    ema = ExponentialMovingAverage(build_unimoco(seed=1))
    ema.load_state_dict(checkpoint['ema_state_dict'])
    assert torch.equal(ema.module.head.queue, keys) and ema.steps == 5
    assert torch.equal(model.head.queue, keys)
    assert (model.head.label_queue == -1).all()
    assert int(model.head.queue_ptr) == 3
    assert "mmpretrain's MoCo" in log.text
    assert 'no key has a label yet' in log.text


@pytest.mark.parametrize('length', [40, 20])
@pytest.mark.parametrize('kind', ['mmengine', 'mmpretrain'])
def test_another_length_with_an_averaged_model(tmp_path, length, kind):
    """EMAHook holds a queue of its own, and exchanges both on resume."""
    hooks = [dict(type='QueueResumeHook'), dict(type=f'{kind}.EMAHook')]
    noise_runner(tmp_path, hooks=hooks).train()
    stored = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    newest = stored['state_dict']['head.queue'].roll(-16, dims=0)

    model = unimoco_config(data_preprocessor={}, head=dict(queue_len=length))
    runner = noise_runner(tmp_path, hooks=hooks, model=model, resume=True)
    runner.call_hook('before_run')
    runner.resume(str(tmp_path / 'epoch_1.pth'))
    (ema,) = (hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
    kept = min(length, QUEUE_LEN)
    for head in (runner.model.head, ema.ema_model.module.head):
        assert torch.equal(head.queue[-kept:], newest[-kept:])
        assert (head.label_queue >= 0).sum() == kept
    averaged = ema.ema_model.module.neck.mlp[0].weight
    assert torch.equal(averaged, stored['state_dict']['neck.mlp.0.weight'])
    assert not torch.equal(averaged, runner.model.neck.mlp[0].weight)


def test_options_with_buffers_join_a_run_that_had_none(tmp_path):
    hook = [dict(type='QueueResumeHook')]
    noise_runner(tmp_path, hooks=hook).train()
    head = dict(label_warmup=100, propagate_labels={})
    model = unimoco_config(data_preprocessor={}, head=head)
    runner = noise_runner(tmp_path, hooks=hook, model=model)
    runner.load_checkpoint(str(tmp_path / 'epoch_1.pth'))
    # 12 steps of the momentum encoder are done.
    assert runner.model.head.step_count() == 12
    assert (runner.model.head.propagated_queue == -1).all()


def test_run_from_weights_counts_its_own_steps(tmp_path, log_of):
    """Else the key encoder would stand still at the end of the cosine."""
    model = unimoco_config(
        data_preprocessor={},
        momentum=0.5,
        end_momentum=0.0,
        head=dict(label_warmup=100),
    )
    options = dict(hooks=[dict(type='QueueResumeHook')], model=model)
    noise_runner(tmp_path / 'first', **options).train()
    weights = tmp_path / 'first/epoch_1.pth'
    stored = torch.load(weights, weights_only=False)['state_dict']
    assert stored['encoder_k.steps'] == stored['head.steps'] == 12
    runner = noise_runner(
        tmp_path / 'second',
        load_from=str(weights),
        log_level='INFO',
        **options,
    )
    runner.register_hook(_FirstStep())
    runner.train()
    assert runner.model.encoder_k.steps == 13
    assert runner.model.head.steps == 12
    text = 'has trained for 12 steps; this run counts its own'
    assert text in log_of(tmp_path / 'second')
    moved, query, key = runner.model.first_step
    # Of 12 steps this is number 1, and the key encoder is the stored one.
    share = 0.25 * (1 + math.cos(math.pi / 12))
    torch.testing.assert_close(moved, torch.lerp(key, query, share))
    assert torch.equal(key, stored['encoder_k.module.1.mlp.0.weight'])


class _FirstStep(Hook):
    """Keeps the key encoder's weights of the first step, and their sources."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            self.labels = runner.model.head.label_queue.clone()
            self.before = [
                encoder.weight.detach().clone()
                for encoder in (
                    runner.model.neck.mlp[0],
                    runner.model.encoder_k.module[1].mlp[0],
                )
            ]

    def after_train_iter(self, runner, batch_idx, *_, **__):
        if batch_idx == 0:
            moved = runner.model.encoder_k.module[1].mlp[0].weight
            runner.model.first_step = moved.clone(), *self.before


@pytest.mark.parametrize(
    ('classes', 'kept'),
    [(('a', 'b', 'c'), True), (('b', 'a', 'c'), False), (None, False)],
)
@pytest.mark.parametrize('averaged', [False, True])
def test_weights_bring_labels_of_the_same_classes(
    tmp_path, log_of, classes, kept, averaged
):
    hooks = [dict(type='QueueResumeHook')]
    hooks += [dict(type='EMAHook')] * averaged
    noise_runner(
        tmp_path / 'first', hooks=hooks, classes=('a', 'b', 'c')
    ).train()
    runner = noise_runner(
        tmp_path / 'second',
        hooks=hooks,
        classes=classes,
        load_from=str(tmp_path / 'first/epoch_1.pth'),
        log_level='INFO',
    )
    first = _FirstStep()
    runner.register_hook(first)
    runner.train()
    assert bool((first.labels >= 0).any()) == kept
    dropped = 'The labels of its keys are not kept' in log_of(
        tmp_path / 'second'
    )
    assert dropped != kept


def test_propagated_labels_move_with_their_keys():
    stored = queues(6, 4) | dict(propagated_queue=queues(6, 4)['label_queue'])
    own = queues(8) | dict(propagated_queue=torch.full((8,), -1))
    fitted, _ = fit_queues(stored, own)
    wanted = [-1, -1, 100, 101, 102, 103, 104, 105]
    assert fitted['propagated_queue'].tolist() == wanted


class HalfLabeled(Noise):
    """Of two images one is unlabeled."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        if index % 2:
            item['data_samples'].pop('gt_label')
        return item


def test_options_of_the_head_resume_exactly(tmp_path):
    """Within the warm-ups, and after labels began to propagate."""
    model = unimoco_config(
        data_preprocessor={},
        start_momentum=0.5,
        momentum_warmup=20,
        head=dict(
            label_warmup=20,
            max_positives=3,
            propagate_labels=dict(k=1, start=6, use='positive'),
            loss=dict(type='UniConLoss', own_key_weight=2),
        ),
    )

    def train(folder, **options):
        runner = noise_runner(
            folder,
            model=model,
            train_cfg=dict(type='ExactEpochLoop', max_epochs=2),
            train_dataloader=dict(
                dataset=HalfLabeled(),
                sampler=dict(type='DefaultSampler', shuffle=True),
                batch_size=4,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
            ),
            **options,
        )
        runner.train()
        return runner.model.state_dict()

    whole = train(tmp_path / 'whole')
    start = str(tmp_path / 'whole/epoch_1.pth')
    again = train(tmp_path / 'again', load_from=start, resume=True)
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name
    assert whole['head.steps'] == 24
    assert (whole['head.propagated_queue'] >= 0).any()
