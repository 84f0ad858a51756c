"""Positions of a run, also for other batches and processes."""

from types import SimpleNamespace

import pytest
from ddp_helpers import run_ddp
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from noise_runs import STEPS, noise_runner
from small_unimoco import unimoco_config
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from mmunimoco.engine.exact import process_state
from mmunimoco.engine.exact.loader import SeededBatches
from mmunimoco.engine.exact.loops import ExactEpochLoop
from mmunimoco.engine.exact.position import Layout, Position, translate
from mmunimoco.engine.exact.process_state import (
    on_main_process,
    preserved_random_state,
    restore_process_state,
)

SAVED = Layout(batches=10, batch_size=4, processes=2, samples=80)


def place(now, epoch=3, iteration=36, steps=False):
    return translate(SAVED, now, epoch, iteration, steps)


def test_nothing_changed():
    assert place(SAVED, steps=True) == Position(36, 6)


@pytest.mark.parametrize('steps', [False, True])
def test_as_many_images_a_step(steps):
    assert place(Layout(10, 8, 1, 80), steps=steps) == Position(36, 6)


def test_other_steps():
    """48 images are seen: 12 steps of 4, or 3 of 16."""
    assert place(Layout(20, 4, 1, 80)) == Position(72, 12)
    assert place(Layout(5, 8, 2, 80)) == Position(18, 3)
    # 7 x 8 = 56 images are 3 x 16 and 8 more, which are seen again.
    assert place(Layout(5, 8, 2, 80), iteration=37) == Position(18, 3, 8)
    # A whole epoch is one, whatever was dropped at its end.
    assert place(Layout(26, 3, 1, 80), iteration=40) == Position(104, 26)


@pytest.mark.parametrize(
    ('now', 'iteration', 'steps', 'message'),
    [
        (Layout(20, 4, 1, 80), 36, True, 'train_dataloader.batch_size=8'),
        (Layout(11, 4, 2, 88), 36, False, 'within an epoch over 80 images'),
        (Layout(20, 4, 1, 80), 29, False, 'do not fit each other'),
    ],
)
def test_no_such_position(now, iteration, steps, message):
    with pytest.raises(ValueError, match=message):
        place(now, iteration=iteration, steps=steps)


def test_other_images_between_epochs():
    now = Layout(11, 4, 2, 88)
    assert place(now, epoch=4, iteration=40) == Position(44, 0)
    with pytest.raises(ValueError, match='as many images as before, 80,'):
        place(now, epoch=4, iteration=40, steps=True)


def _start_loop(rank, world_size, round_up):
    """Nine images in batches of four: five for rank 0, four for rank 1."""
    images = list(range(9))
    sampler = DefaultSampler(images, shuffle=False, round_up=round_up)
    loader = DataLoader(images, batch_size=4, sampler=sampler)
    runner = SimpleNamespace(seed=0, rank=rank, world_size=world_size)
    try:
        return len(ExactEpochLoop(runner, loader, max_epochs=1).batches)
    except ValueError as error:
        return str(error)


def test_all_processes_refuse_unequal_shares(tmp_path):
    first, second = run_ddp(_start_loop, 2, tmp_path, False)
    assert first == second
    assert '2 batches of 9' in first and '1 batches of 9' in first
    assert 'process 1' in first and 'round_up=True' in first
    assert run_ddp(_start_loop, 2, tmp_path, True) == [2, 2]


LOOP = dict(type='ExactEpochLoop', max_epochs=2)
# Momentum and batches -> whether the position has a meaning with others.
SCHEDULES = [
    (dict(), True),
    (dict(end_momentum=0.0), False),
    (dict(start_momentum=0.5, momentum_warmup=20), False),
    (dict(start_momentum=0.5, momentum_warmup=12), True),
    (dict(head=dict(label_warmup=20)), False),
    (dict(head=dict(label_warmup=8, propagate_labels=dict(start=12))), True),
    (dict(head=dict(propagate_labels=dict(start=20))), False),
]


@pytest.mark.parametrize(('options', 'goes_on'), SCHEDULES)
def test_schedules_of_the_model_count_steps(tmp_path, options, goes_on):
    model = unimoco_config(data_preprocessor={}, **options)
    noise_runner(tmp_path, model=model, train_cfg=LOOP, epochs=1).train()
    runner = resumed_with_twice_the_images(tmp_path, model=model)
    if not goes_on:
        with pytest.raises(ValueError, match='schedules count steps'):
            runner.train()
        return
    runner.train()
    assert runner.iter == STEPS


def test_schedules_of_the_optimizer_count_steps(tmp_path):
    schedule = dict(type='LinearLR', by_epoch=False, end=20)
    options = dict(param_scheduler=schedule)
    noise_runner(tmp_path, train_cfg=LOOP, **options).train()
    with pytest.raises(ValueError, match='schedules count steps'):
        resumed_with_twice_the_images(tmp_path, **options).train()


@pytest.mark.parametrize('count', [2, 3, 4])
def test_accumulation_goes_on_with_other_batches(tmp_path, monkeypatch, count):
    optimizer = dict(
        optimizer=dict(type='SGD', lr=0.03), accumulative_counts=count
    )
    noise_runner(tmp_path, train_cfg=LOOP, optim_wrapper=optimizer).train()
    runner = resumed_with_twice_the_images(tmp_path, optim_wrapper=optimizer)
    factors, scale = [], OptimWrapper.scale_loss

    def observed(self, loss):
        scaled = scale(self, loss)
        factors.append((scaled / loss).item())
        return scaled

    monkeypatch.setattr(OptimWrapper, 'scale_loss', observed)
    runner.train()
    # Six steps of twice the images; the last ones may be a smaller group.
    rest = STEPS % count
    wanted = [1 / count] * (STEPS // 2 - rest) + [1 / (rest or 1)] * rest
    assert factors == pytest.approx(wanted)


@pytest.mark.parametrize('interval', [3, 4])
def test_checkpoints_between_two_steps_of_the_optimizer(
    tmp_path, log_of, interval
):
    checkpoint = dict(type='ExactCheckpointHook', by_epoch=False)
    noise_runner(
        tmp_path,
        train_cfg=dict(type='ExactEpochLoop', max_epochs=1),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.03), accumulative_counts=2
        ),
        default_hooks=dict(checkpoint=dict(checkpoint, interval=interval)),
    ).train()
    warned = 'gradients accumulated so far are not in it' in log_of(tmp_path)
    assert warned == (interval == 3)


def _fail_on_main(rank, world_size):
    def fail():
        raise ValueError(f'found by rank {rank}')

    with pytest.raises(ValueError, match='found by rank 0'):
        on_main_process(fail)
    return on_main_process(lambda: rank)


def test_an_error_of_the_main_process_is_one_of_all(tmp_path):
    """Else the others would wait for it."""
    assert run_ddp(_fail_on_main, 2, tmp_path) == [0, 0]


def test_random_numbers_of_another_number_of_processes(monkeypatch):
    """They are those of no other rank, and of no other step."""
    states = []
    with preserved_random_state():
        for rank, step in ((0, 5), (1, 5), (0, 6), (0, 5)):
            monkeypatch.setattr(process_state, 'get_rank', rank.__int__)
            state = restore_process_state(nn.Identity(), [{}] * 3, 7, step)
            states.append(tuple(state['torch'].tolist()))
    assert len(set(states)) == 3 and states[0] == states[3]


def resumed_with_twice_the_images(folder, **options):
    """A run from the first epoch on, of half as many steps an epoch."""
    runner = noise_runner(
        folder,
        train_cfg=LOOP,
        load_from=str(folder / 'epoch_1.pth'),
        resume=True,
        **options,
    )
    runner._train_dataloader['batch_size'] *= 2
    return runner


def test_start_far_ahead_in_short_epochs():
    """Of a sampler without epochs, which is asked again and again."""
    batches = SeededBatches(
        BatchSampler(SequentialSampler(range(4)), 2, False), seed=0, rank=0
    )
    batches.start = 2 * 3000 + 1
    assert [list(batch) for batch in batches] == [[2, 3]]
    assert (batches.epoch, batches.start) == (3000, 1)
