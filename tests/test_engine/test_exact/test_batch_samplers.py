"""Batch samplers of your own: P classes x K images, resumed exactly."""

import random

import numpy as np
import pytest
import torch
from mmengine.registry import DATA_SAMPLERS
from mmpretrain.datasets import RepeatAugSampler
from noise_runs import STEPS, N, Noise, noise_runner

from benchmarks.checkpoint_differences import differences

SEEN = []


class PByK:
    """Half of a batch from each of two random classes, of the labels i % 3.

    Like most of its kind it has no ``batch_size``, and no epoch.

    Args:
        sampler, batch_size: What mmengine gives it.
    """

    def __init__(self, sampler, batch_size):
        self.size = batch_size
        self.draw = self.generator()

    def generator(self):
        """Return a function (population, count) -> that many of it."""
        return random.sample

    def batch(self):
        chosen = self.draw(range(3), 2)
        indices = [
            label + 3 * i
            for label in chosen
            for i in self.draw(range(N * STEPS // 3), self.size // 2)
        ]
        SEEN.append([int(i) for i in indices])
        return SEEN[-1]

    def __iter__(self):
        for _ in range(STEPS):
            yield self.batch()

    def __len__(self):
        return STEPS


@DATA_SAMPLERS.register_module()
class PByKOfPython(PByK):
    pass


@DATA_SAMPLERS.register_module()
class PByKOfNumpy(PByK):
    def generator(self):
        return lambda *arguments: np.random.choice(*arguments, replace=False)


@DATA_SAMPLERS.register_module()
class PByKWithItsOwnState(PByK):
    def generator(self):
        return random.Random(3).sample


@DATA_SAMPLERS.register_module()
class EndlessPByK(PByK):
    """The length of such samplers is only what is reported."""

    def __iter__(self):
        while True:
            yield self.batch()


@DATA_SAMPLERS.register_module()
class PByKWithItsSize(PByK):
    @property
    def batch_size(self):
        return self.size


@DATA_SAMPLERS.register_module()
class TorchsOwn(torch.utils.data.RandomSampler):
    """Draws its seed from torch's global generator."""

    def __init__(self, dataset, seed=None, round_up=True):
        super().__init__(dataset)

    def __iter__(self):
        for index in super().__iter__():
            SEEN.append(index)
            yield index


@DATA_SAMPLERS.register_module()
class Repeated(RepeatAugSampler):
    """mmpretrain's, which repeats each image."""

    def __iter__(self):
        for index in super().__iter__():
            SEEN.append(index)
            yield index


def own_runner(folder, loop, kind, **changes):
    loader = dict(
        dataset=Noise(),
        batch_size=N,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
    )
    if kind in ('TorchsOwn', 'Repeated'):
        loader['sampler'] = dict(type=kind)
    else:
        loader['sampler'] = dict(type='DefaultSampler', shuffle=False)
        loader['batch_sampler'] = dict(type=kind)
    length = dict(max_epochs=3) if 'Epoch' in loop else dict(max_iters=30)
    return noise_runner(
        folder,
        train_dataloader=loader,
        train_cfg=dict(type=loop, **length),
        default_hooks=dict(
            checkpoint=dict(
                type='ExactCheckpointHook', by_epoch=False, interval=5
            ),
            logger=dict(type='LoggerHook', interval=1),
        ),
        **changes,
    )


def last(folder):
    name = (folder / 'last_checkpoint').read_text()
    return torch.load(name, weights_only=False)


@pytest.mark.parametrize(
    ('loop', 'kind'),
    [
        ('ExactEpochLoop', 'PByKOfPython'),
        ('ExactEpochLoop', 'PByKWithItsOwnState'),
        ('ExactEpochLoop', 'TorchsOwn'),
        ('ExactEpochLoop', 'Repeated'),
        ('ExactIterLoop', 'PByKOfNumpy'),
        ('ExactIterLoop', 'PByKWithItsOwnState'),
        ('ExactIterLoop', 'EndlessPByK'),
    ],
)
def test_resumed_run_equals_the_undisturbed_one(tmp_path, loop, kind):
    """From the fifth step of the third epoch of 12."""
    SEEN.clear()
    own_runner(tmp_path / 'all', loop, kind).train()
    drawn = list(SEEN)
    epochs = [drawn[i * len(drawn) // 3 :][: len(drawn) // 3] for i in (0, 1)]
    assert epochs[0] != epochs[1]
    SEEN.clear()
    start = str(tmp_path / 'all/iter_25.pth')
    runner = own_runner(
        tmp_path / 'rest', loop, kind, load_from=start, resume=True
    )
    # It must not depend on what else has been drawn in this process.
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    runner.train()
    whole, resumed = last(tmp_path / 'all'), last(tmp_path / 'rest')
    assert list(differences(whole, resumed)) == []
    assert SEEN[-5:] == drawn[-5:]


def test_another_layout_needs_the_batch_size(tmp_path):
    own_runner(tmp_path, 'ExactEpochLoop', 'PByKOfPython').train()
    runner = own_runner(
        tmp_path / 'other',
        'ExactEpochLoop',
        'PByKOfPython',
        resume=True,
        load_from=str(tmp_path / 'iter_25.pth'),
    )
    runner.train_loop.dataloader.dataset.dataset.length += 1
    with pytest.raises(ValueError, match='has no attribute batch_size'):
        runner.train()


@pytest.mark.parametrize('loop', ['ExactEpochLoop', 'ExactIterLoop'])
def test_another_batch_sampler_needs_the_sampler(tmp_path, loop):
    """Of the same layout, so that only the seed has no place."""
    noise_runner(
        tmp_path,
        train_cfg=dict(type='ExactEpochLoop', max_epochs=1),
    ).train()
    start = (tmp_path / 'last_checkpoint').read_text()
    runner = own_runner(
        *(tmp_path / 'other', loop, 'PByKWithItsSize'),
        load_from=start,
        resume=True,
    )
    with pytest.raises(ValueError, match='PByKWithItsSize, has no attribute'):
        runner.train()


def test_steps_count_the_same_number_of_images(tmp_path):
    """Of a loop of iterations, whose length and schedules count steps."""
    own_runner(tmp_path, 'ExactIterLoop', 'TorchsOwn').train()
    runner = own_runner(
        *(tmp_path / 'other', 'ExactIterLoop', 'TorchsOwn'),
        load_from=str(tmp_path / 'iter_25.pth'),
        resume=True,
    )
    runner._train_dataloader['batch_size'] *= 2
    size = f'train_dataloader.batch_size={N}'
    with pytest.raises(ValueError, match=f'change their meaning: .*{size}'):
        runner.train()
