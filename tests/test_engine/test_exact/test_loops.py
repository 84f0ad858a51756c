"""What the exact loops and their loader keep of mmengine's and torch's."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from mmpretrain.registry import LOOPS
from noise_runs import STEPS, noise_runner
from torch.utils.data import DataLoader, RandomSampler

from mmunimoco.engine.exact.loader import exact_loader
from mmunimoco.engine.exact.loops import ExactEpochLoop


class Draws:
    """Samples are random numbers."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return random.random(), np.random.rand(), torch.rand(()).item()


def test_each_image_of_each_rank_and_epoch_has_its_own_random_numbers():
    loaders = [
        exact_loader(DataLoader(Draws(), 2, collate_fn=list), 0, rank)
        for rank in (0, 1)
    ]
    np.random.seed(1)
    before = random.getstate(), torch.get_rng_state()
    numbers = []
    for epoch, loader in itertools.product((0, 1), loaders):
        loader.batch_sampler.epoch = epoch
        numbers += [x for batch in loader for row in batch for x in row]
    assert len(set(numbers)) == len(numbers) == 2 * 2 * 4 * 3
    # Those that training draws from are left alone.
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.rand() == np.random.RandomState(1).rand()


def test_options_of_the_loader_stay():
    loader = DataLoader(
        range(8),
        2,
        num_workers=2,
        pin_memory=True,
        timeout=7,
        prefetch_factor=5,
        persistent_workers=True,
        multiprocessing_context='spawn',
        collate_fn=list,
    )
    exact = exact_loader(loader, seed=0, rank=0)
    names = ['batch_size', 'num_workers', 'pin_memory', 'timeout']
    names += ['prefetch_factor', 'persistent_workers', 'collate_fn']
    names += ['multiprocessing_context']
    for name in names:
        assert getattr(exact, name) == getattr(loader, name), name


@pytest.mark.parametrize('differ', [False, True])
def test_samplers_without_a_seed_differ_between_ranks_if_asked_to(differ):
    asked, orders, seeds = [], [], []

    def build_dataloader(config, seed, diff_rank_seed):
        asked.append(diff_rank_seed)
        return DataLoader(range(20), sampler=RandomSampler(range(20)))

    for rank in (0, 1):
        runner = SimpleNamespace(
            seed=0,
            rank=rank,
            world_size=1,
            build_dataloader=build_dataloader,
            _randomness_cfg=dict(diff_rank_seed=differ),
        )
        loop = ExactEpochLoop(runner, {}, max_epochs=1)
        batches = list(loop.batches)
        orders.append([tuple(batch) for batch in batches])
        seeds.append([batch.entropy for batch in batches])
    assert (orders[0] != orders[1]) == differ
    assert asked == [differ] * 2
    # Of the augmentation, always.
    assert set(seeds[0]).isdisjoint(seeds[1])


@LOOPS.register_module()
class Recorded(BaseLoop):
    """Notes when it validates; draws random numbers, and leaves eval mode."""

    def __init__(self, runner, dataloader, evaluator):
        super().__init__(runner, dataloader)
        self.at = []

    def run(self):
        self.at.append(self.runner.iter)
        self.runner.model.eval()
        torch.rand(3)


class Observed(Hook):
    """Notes the mode of the model, and random numbers, in each step."""

    def __init__(self, stop_at=None):
        self.seen = []
        self.stop_at = stop_at

    def after_train_iter(self, runner, *_, **__):
        self.seen.append((runner.model.training, torch.rand(()).item()))
        if runner.iter + 1 == self.stop_at:  # as EarlyStoppingHook does
            runner.train_loop.stop_training = True


def validated(folder, loop, stop_at=None, **changes):
    """Train; at which steps the run was validated, and what was observed."""
    hook = Observed(stop_at)
    runner = noise_runner(
        folder,
        hooks=[hook],
        train_cfg=loop,
        val_cfg=dict(type='Recorded'),
        val_dataloader=dict(
            dataset=range(2), batch_size=1, sampler=dict(type=DefaultSampler)
        ),
        val_evaluator=[],
        **changes,
    )
    runner.train()
    return runner.val_loop.at, hook.seen


BY_EPOCH = dict(max_epochs=7, val_begin=2, val_interval=4)
BY_EPOCH['dynamic_intervals'] = [(5, 2)]
BY_STEP = dict(max_iters=31, val_begin=4, val_interval=4)
BY_STEP['dynamic_intervals'] = [(20, 5)]
PAIRS = [
    ('EpochBasedTrainLoop', 'ExactEpochLoop', BY_EPOCH),
    ('IterBasedTrainLoop', 'ExactIterLoop', BY_STEP),
]


@pytest.mark.parametrize(('plain', 'exact', 'options'), PAIRS)
def test_validated_when_mmengine_does(tmp_path, plain, exact, options):
    changes = dict(default_hooks=dict(checkpoint=None))
    expected, _ = validated(
        tmp_path / 'a', dict(options, type=plain), **changes
    )
    found, seen = validated(
        tmp_path / 'b', dict(options, type=exact), **changes
    )
    assert found == expected and len(found) > 2
    # Validation changes neither the mode nor the random numbers of training.
    assert all(training for training, _ in seen)
    never = dict(options, type=exact, val_begin=99)
    _, undisturbed = validated(tmp_path / 'c', never, **changes)
    assert [x for _, x in undisturbed] == [x for _, x in seen]


@pytest.mark.parametrize(('_', 'exact', 'options'), PAIRS)
def test_hooks_may_stop_a_run(tmp_path, _, exact, options):
    _, seen = validated(tmp_path, dict(options, type=exact), stop_at=STEPS)
    assert len(seen) == STEPS


def test_a_sampler_without_end_needs_a_run_of_steps(tmp_path):
    loop = dict(type='ExactEpochLoop', max_epochs=1)
    runner = noise_runner(tmp_path, train_cfg=loop)
    runner._train_dataloader['sampler'] = dict(type='InfiniteSampler')
    with pytest.raises(ValueError, match='InfiniteSampler, never.*ExactIter'):
        runner.train()


def test_a_validation_that_was_due_is_made_up_for(tmp_path):
    loop = dict(type='ExactIterLoop', max_iters=20, val_interval=5)
    checkpoint = dict(type='ExactCheckpointHook', by_epoch=False, interval=5)
    changes = dict(default_hooks=dict(checkpoint=checkpoint))
    at, _ = validated(tmp_path, loop, **changes)
    assert at == [5, 10, 15, 20]
    start = str(tmp_path / 'iter_10.pth')
    changes |= dict(load_from=start, resume=True)
    at, _ = validated(tmp_path / 'again', loop, **changes)
    assert at == [10, 15, 20]
    # Of a checkpoint from within or after the validation it is not repeated.
    checkpoint = torch.load(start, weights_only=False)
    checkpoint['exact_resume']['loop']['validated'] = True
    torch.save(checkpoint, start)
    at, _ = validated(tmp_path / 'done', loop, **changes)
    assert at == [15, 20]


def test_each_epoch_is_validated_although_the_one_before_was(tmp_path):
    loop = dict(type='ExactEpochLoop', max_epochs=3)
    at, _ = validated(tmp_path, loop)
    assert at == [STEPS, 2 * STEPS, 3 * STEPS]
    start = dict(load_from=str(tmp_path / 'epoch_2.pth'), resume=True)
    at, _ = validated(tmp_path / 'again', loop, **start)
    assert at == [2 * STEPS, 3 * STEPS]


def test_the_rest_of_an_epoch_that_mmengine_began(tmp_path):
    """Its loop would have trained on the whole epoch again."""
    checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=5)
    hooks = dict(default_hooks=dict(checkpoint=checkpoint))
    noise_runner(tmp_path, epochs=2, **hooks).train()
    runner = noise_runner(
        tmp_path / 'exact',
        train_cfg=dict(type='ExactEpochLoop', max_epochs=2),
        load_from=str(tmp_path / f'iter_{STEPS // 5 * 5 + 5}.pth'),
        resume=True,
    )
    runner.train()
    assert runner.iter == 2 * STEPS
