"""Positions of a run, also for other batches and processes."""

from types import SimpleNamespace

import pytest
from ddp_helpers import run_ddp
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

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
