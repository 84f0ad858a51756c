"""Positions of a run, also for other batches and processes."""

from types import SimpleNamespace

import pytest
from ddp_helpers import run_ddp
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from noise_runs import STEPS, noise_runner
from small_unimoco import unimoco_config
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from mmunimoco.engine.exact.loader import SeededBatches
from mmunimoco.engine.exact.loops import ExactEpochLoop
from mmunimoco.engine.exact.position import Layout, Position, translate

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
    (dict(head=dict(label_warmup=3, propagate_labels=dict(start=4))), True),
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
