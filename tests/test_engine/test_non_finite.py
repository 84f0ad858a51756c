"""Steps that are not finite leave nothing behind, and stop the run."""

import re
from types import SimpleNamespace

import pytest
import torch
from ddp_helpers import run_ddp
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from noise_runs import STEPS, N, Noise, noise_runner
from small_unimoco import build_unimoco, unimoco_config
from torch import nn

from mmunimoco.engine import NonFiniteLossHook
from mmunimoco.engine.finite_steps import (
    GradientGuard,
    any_not_finite,
    guard_optimizers,
)
from mmunimoco.models.labels import SampleLabels

HOOK = dict(type='NonFiniteLossHook', interval=3)
NAN, INF = float('nan'), float('inf')


def floats(state):
    return {k: v for k, v in state.items() if v.is_floating_point()}


def images_of_step(step):
    return range(step * N, step * N + N)


def test_a_finite_run_is_the_same_to_the_last_bit(tmp_path):
    states = []
    for name, hooks in (('with', [HOOK]), ('without', [])):
        runner = noise_runner(tmp_path / name, hooks=hooks)
        runner.train()
        states.append(
            (
                runner.model.state_dict(),
                runner.optim_wrapper.state_dict()['state'],
            )
        )
    (model, optimizer), (wanted, wanted_optimizer) = states
    assert all(torch.equal(model[name], wanted[name]) for name in wanted)
    for index, state in wanted_optimizer.items():
        assert torch.equal(
            optimizer[index]['momentum_buffer'], state['momentum_buffer']
        )


def test_a_skipped_step_leaves_nothing(tmp_path):
    """The weights are those of a run that never saw its images."""
    poisoned = images_of_step(STEPS - 1)
    runner = noise_runner(tmp_path / 'bad', poisoned[1:2], [HOOK])
    runner.train()
    other = noise_runner(tmp_path / 'good')
    dataset = other._train_dataloader['dataset']
    dataset.length = N * (STEPS - 1)
    other.train()
    state, wanted = runner.model.state_dict(), other.model.state_dict()
    for name, parameter in other.model.named_parameters():
        if name.startswith('encoder_k'):
            continue  # moves towards the weights, which were finite
        assert torch.equal(state[name], parameter), name
    assert all(value.isfinite().all() for value in floats(state).values())
    # One poisoned image spoils all keys of the step: the old ones stay.
    at = slice(N * (STEPS - 1) % 32, None)
    assert torch.equal(
        state['head.queue'][at][:N], wanted['head.queue'][at][:N]
    )
    buffers = runner.optim_wrapper.state_dict()['state']
    for index, kept in other.optim_wrapper.state_dict()['state'].items():
        assert torch.equal(
            buffers[index]['momentum_buffer'], kept['momentum_buffer']
        )


def test_one_bad_step_is_skipped_and_listed(tmp_path, log_of):
    bad = 5
    runner = noise_runner(tmp_path, [bad * N + 2], [HOOK])
    runner.train()
    state = runner.model.state_dict()
    assert all(value.isfinite().all() for value in floats(state).values())
    history = runner.message_hub.get_scalar('train/loss').data[0]
    assert [step for step, x in enumerate(history) if x != x] == [bad]
    listed = (tmp_path / 'non_finite_images.txt').read_text().splitlines()
    assert listed == [f'{bad + 1}\t0\t{i}.jpg' for i in images_of_step(bad)]
    text = log_of(tmp_path)
    assert text.count('steps were skipped') == 1
    assert '1 of the last 3 steps' in text
    assert 'iteration 6 in epoch 1 (images of rank 0: 20.jpg, 21.jpg' in text


def test_stops_and_names_step_images_and_checkpoint(tmp_path):
    """Two epochs; from the second on every image is poisoned."""
    hook = dict(HOOK, max_skipped=2, interval=100)
    runner = noise_runner(tmp_path, hooks=[hook], epochs=2)
    runner.register_hook(_PoisonSecondEpoch())
    with pytest.raises(FloatingPointError) as error:
        runner.train()
    message = str(error.value)
    assert '\n' not in message
    assert 'in 3 steps in a row, up to iteration 15;' in message
    assert 'The first was iteration 13 in epoch 2' in message
    assert 'rank 0: 0.jpg, 1.jpg, 2.jpg, 3.jpg)' in message
    path = re.search(r'good checkpoint is (\S+?\.pth)', message)[1]
    assert path.endswith('epoch_1.pth')
    saved = torch.load(path, weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in floats(saved).values())
    for name, parameter in runner.model.named_parameters():
        if not name.startswith('encoder_k'):
            assert torch.equal(saved[name], parameter.detach()), name


class _PoisonSecondEpoch(Hook):
    """Makes all images of the second epoch NaN."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            runner.train_dataloader.dataset.poisoned = set(range(N * STEPS))


def test_bad_steps_that_are_not_in_a_row_do_not_stop(tmp_path, log_of):
    """Every other step is bad, over several reads."""
    poisoned = [i for step in range(0, STEPS, 2) for i in images_of_step(step)]
    hook = dict(HOOK, max_skipped=1)
    noise_runner(tmp_path, poisoned, [hook]).train()
    assert log_of(tmp_path).count('steps were skipped') == STEPS // 3
    with pytest.raises(FloatingPointError, match='in 1 steps in a row'):
        noise_runner(tmp_path, poisoned, [dict(HOOK, max_skipped=0)]).train()


def test_good_steps_between_two_reads_end_a_row(tmp_path):
    """Read every third step; bad are the last of one and a later first."""
    poisoned = [*images_of_step(2), *images_of_step(6)]
    noise_runner(tmp_path, poisoned, [dict(HOOK, max_skipped=1)]).train()


@pytest.mark.parametrize('count', [1, 2, 3])
def test_bad_gradients_of_finite_losses_stop_a_run(tmp_path, count):
    """A batch whose gradients are only accumulated proves nothing."""
    runner = noise_runner(
        *(tmp_path, (), [dict(HOOK, max_skipped=2)]),
        epochs=2,
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.03), accumulative_counts=count
        ),
    )
    weight = runner.model.neck.mlp[0].weight
    weight.register_hook(lambda gradient: gradient * NAN)
    with pytest.raises(FloatingPointError, match='in 3 steps in a row'):
        runner.train()


@pytest.mark.parametrize('kind', ['ExactCheckpointHook', 'CheckpointHook'])
def test_statistics_in_a_checkpoint_within_an_epoch_are_finite(tmp_path, kind):
    """Also between two reads."""
    hooks = [dict(HOOK, interval=100)]
    checkpoint = dict(type=kind, by_epoch=False, interval=5)
    runner = noise_runner(
        tmp_path,
        [9],
        hooks,
        default_hooks=dict(checkpoint=checkpoint),
        train_cfg=dict(by_epoch=False, max_iters=6),
    )
    runner.train()
    saved = torch.load(tmp_path / 'iter_5.pth', weights_only=False)
    for name, value in floats(saved['state_dict']).items():
        assert value.isfinite().all(), name


def test_statistics_in_a_checkpoint_of_an_epoch_are_finite(tmp_path):
    """Mmengine's hook saves it; the epoch's last step is bad."""
    checkpoint = dict(type='CheckpointHook', interval=1)
    noise_runner(
        *(tmp_path, images_of_step(STEPS - 1), [dict(HOOK, interval=100)]),
        epochs=2,
        default_hooks=dict(checkpoint=checkpoint),
    ).train()
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    for name, value in floats(saved['state_dict']).items():
        assert value.isfinite().all(), name


class _Validating(Hook):
    """Statistics before the last step, and as a validation finds them."""

    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, *_, **__):
        if batch_idx == STEPS - 1:
            runner.call_hook('before_val')
        self.before = getattr(self, 'now', None)
        self.now = [
            buffer.clone()
            for name, buffer in runner.model.named_buffers()
            if 'running' in name
        ]


def test_a_validation_finds_the_statistics_from_before_a_bad_step(tmp_path):
    """Read after each step but the last, which is bad."""
    hook, validating = NonFiniteLossHook(), _Validating()
    hook._is_due = lambda runner, batch_idx: batch_idx < STEPS - 1
    hooks = [hook, validating]
    noise_runner(tmp_path, images_of_step(STEPS - 1), hooks).train()
    pairs = zip(validating.before, validating.now, strict=True)
    assert all(torch.equal(before, now) for before, now in pairs)


def _two_processes(rank, world_size, folder):
    """Only rank 1 gets NaN, in steps 2 and from 6 on."""
    bad = [2, *range(6, STEPS)]
    poisoned = [2 * N * step + 2 * i + 1 for step in bad for i in range(N)]
    hook = dict(HOOK, max_skipped=2)
    dataset = Noise(poisoned, length=2 * N * STEPS)
    runner = noise_runner(
        folder,
        hooks=[hook],
        # Otherwise the key encoder mixes images of both ranks.
        model=unimoco_config(shuffle_bn=False, data_preprocessor=dict()),
        launcher='pytorch',
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                device_ids=None,
            )
        ),
        train_dataloader=dict(
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=N,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
        ),
    )
    try:
        runner.train()
        message = ''
    except FloatingPointError as error:
        message = str(error)
    model = runner.model.module
    state = model.state_dict()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    return message, floats(state), losses.tolist()


def test_processes_agree(tmp_path):
    (message, state, losses), other = run_ddp(
        _two_processes, 2, tmp_path, str(tmp_path / 'run')
    )
    assert message == other[0]
    assert 'in 3 steps in a row, up to iteration 9;' in message
    assert 'iteration 7 in epoch 1 (images of rank 1: 49.jpg,' in message
    assert 'rank 0' not in message
    listed = (tmp_path / 'run/non_finite_images.txt').read_text().split('\n')
    assert len(listed[:-1]) == len(set(listed[:-1])) == 4 * N
    assert losses[2] == losses[2] and other[2][2] != other[2][2]
    for name, value in state.items():
        assert value.isfinite().all(), name
        if 'running' not in name:
            assert torch.equal(value, other[1][name]), name


@pytest.mark.parametrize('loss', [NAN, INF])
def test_optimizer_of_a_gradient_scaler_is_not_guarded(loss):
    """It skips steps itself; a loss that is not finite still counts."""
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('this torch has no GradScaler for a CPU')
    scaler = torch.amp.GradScaler('cpu')
    wrapper = SimpleNamespace(loss_scaler=scaler)
    assert guard_optimizers(wrapper) == []
    scaler = torch.amp.GradScaler('cpu', enabled=False)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1)
    wrapper = SimpleNamespace(loss_scaler=scaler, optimizer=optimizer)
    (guard,) = guard_optimizers(wrapper)
    guard.remove()
    weight = optimizer.param_groups[0]['params'][0]
    weight.grad = torch.full((1,), float('nan'))
    optimizer.step()
    assert weight.isnan().all() and guard.take() is None
    hook = NonFiniteLossHook()
    runner = SimpleNamespace(epoch=0, iter=0)
    hook._record(runner, None, torch.tensor(loss))
    hook._record(runner, None, torch.tensor(1.0))
    assert [step.bad.tolist() for step in hook._waiting] == [
        [True, False],
        [False, False],
    ]


def test_steps_are_guarded_after_a_compilation():
    """PyTorch 2.1 then calls no step hooks, without a warning."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1)
    (guard,) = guard_optimizers(SimpleNamespace(optimizer=optimizer))
    torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1))
    weight.grad = torch.full((1,), float('nan'))
    optimizer.step()
    assert weight.item() == 1 and guard.take()
    weight.grad = torch.ones(1)
    optimizer.step()
    assert weight.item() == 0 and not guard.take()


@pytest.mark.parametrize(
    ('kind', 'options'), [('SGD', dict(momentum=0.9)), ('AdamW', {})]
)
@pytest.mark.parametrize('bad', [NAN, INF, -INF])
def test_skipped_step_is_as_if_it_had_not_been(kind, options, bad):
    results = []
    for gradients in ([1, 2, bad, 3], [1, 2, 3]):
        weight = nn.Parameter(torch.ones(5, dtype=torch.float64))
        optimizer = getattr(torch.optim, kind)(
            [weight, nn.Parameter(torch.ones(2))],
            lr=0.1,
            weight_decay=0.1,
            **options,
        )
        guard = GradientGuard(optimizer)
        skipped = []
        for value in gradients:
            weight.grad = torch.ones(5, dtype=torch.float64)
            weight.grad[3] = value
            optimizer.step()
            skipped.append(bool(guard.take()))
            assert guard.take() is None
        results.append((weight.detach(), optimizer.state_dict()['state'][0]))
    (weight, state), (wanted, wanted_state) = results
    assert skipped == [False] * 3
    assert torch.equal(weight, wanted)
    for name, value in wanted_state.items():
        assert value is None or torch.equal(state[name], value), name


def test_any_not_finite_does_not_overflow():
    large = [torch.full((9,), torch.finfo(torch.float16).max).half()]
    large += [
        torch.full((9,), 3e38),
        torch.full((9,), 1e308, dtype=torch.float64),
    ]
    assert not any_not_finite(large)
    large[0][4] = NAN
    assert any_not_finite(large)


def test_nothing_is_read_between():
    """On a device that has no values to read."""
    hook = NonFiniteLossHook()
    hook._is_due = lambda *_: False
    runner = SimpleNamespace(epoch=0, iter=0)
    hook._guards = [SimpleNamespace(take=lambda: flag)]
    flag = torch.zeros((), dtype=torch.bool, device='meta')
    for _ in range(3):
        loss = torch.zeros((), device='meta', requires_grad=True) * 1
        hook.after_train_iter(runner, 0, dict(inputs=[]), dict(loss=loss))
    assert len(hook._waiting) == 3
    parameter = nn.Parameter(torch.zeros(3, device='meta'))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    guard = GradientGuard(optimizer)
    parameter.grad = torch.zeros(3, device='meta')
    try:
        torch._foreach_norm([parameter.grad], float('inf'))
    except NotImplementedError:
        pytest.skip('this torch has no norms of tensors without values')
    optimizer.step()
    assert guard.take().device.type == 'meta'


def test_keys_that_are_not_finite_are_not_enqueued():
    head = build_unimoco(num_classes=3, exclude_own_keys=True).head
    before = {k: v.clone() for k, v in head.named_buffers()}
    query, key = nn.functional.normalize(torch.randn(2, 5, 16), dim=2)
    key[1, 3], key[4] = NAN, INF
    labels = torch.tensor([0, 1, 2, -1, 1])
    head.loss(query, key, SampleLabels(labels, torch.arange(5)))
    assert head.queue_ptr == 5
    kept = torch.tensor([1, 4])
    for name in ('queue', 'label_queue', 'index_queue'):
        assert torch.equal(getattr(head, name)[kept], before[name][kept])
    assert torch.equal(head.queue[[0, 2, 3]], key[[0, 2, 3]])
    assert head.label_queue[[0, 2, 3]].tolist() == [0, 2, -1]
    assert head.index_queue[[0, 2, 3]].tolist() == [0, 2, 3]


def test_a_bad_key_of_a_batch_longer_than_the_queue_is_not_enqueued():
    head = build_unimoco(num_classes=3, queue_len=4).head
    before = head.queue.clone()
    query, key = nn.functional.normalize(torch.randn(2, 6, 16), dim=2)
    key[[1, 5]] = NAN
    head.loss(query, key, torch.zeros(6).long())
    # Keys 2 to 5 are the newest four, for rows 2, 3, 0 and 1.
    assert torch.equal(head.queue[[2, 3, 0]], key[2:5])
    assert torch.equal(head.queue[1], before[1])
    assert head.label_queue.tolist() == [0, -1, 0, 0]


@pytest.mark.parametrize('options', [dict(max_skipped=-1), dict(interval=0)])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        NonFiniteLossHook(**options)


def test_all_optimizers_of_a_run_are_guarded():
    optimizers = [
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1) for _ in 'ab'
    ]
    wrappers = {str(i): OptimWrapper(x) for i, x in enumerate(optimizers)}
    guards = guard_optimizers(OptimWrapperDict(**wrappers))
    for optimizer in optimizers:
        weight = optimizer.param_groups[0]['params'][0]
        weight.grad = torch.full((1,), NAN)
        optimizer.step()
        assert weight.item() == 1
    assert [bool(guard.take()) for guard in guards] == [True, True]
