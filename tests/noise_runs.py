"""Runs of a small UniMoCo on noise, some of it NaN."""

import torch
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from small_unimoco import SGD, unimoco_config
from torch.utils.data import Dataset

N, STEPS = 4, 12


class Noise(Dataset):
    """Two views of noise per image; the poisoned images are all NaN.

    Args:
        poisoned: Indices of those images.
        length: Number of images.
    """

    def __init__(self, poisoned=(), length=N * STEPS):
        self.poisoned, self.length = set(poisoned), length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        views = list(torch.randn(2, 3, 32, 32, generator=generator))
        if index in self.poisoned:
            views = [view * float('nan') for view in views]
        sample = DataSample(metainfo=dict(img_path=f'{index}.jpg'))
        return dict(inputs=views, data_samples=sample.set_gt_label(index % 3))


def noise_runner(
    work_dir, poisoned=(), hooks=(), epochs=1, classes=None, **changes
):
    """Build a runner: 12 steps an epoch of 4 images each, in order.

    Args:
        work_dir (Path): Its folder.
        poisoned: Indices of images that are NaN.
        hooks: Configs of custom hooks.
        epochs (int): Number of epochs.
        classes: Names of the three classes.
        **changes: Other arguments of the runner.
    """
    torch.manual_seed(0)
    dataset = Noise(poisoned)
    dataset.metainfo = dict(classes=classes) if classes else {}
    settings = dict(
        model=unimoco_config(data_preprocessor=dict()),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=N,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', **SGD)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=4),
            checkpoint=dict(type='ExactCheckpointHook', interval=1),
        ),
        custom_hooks=list(hooks),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=str(work_dir).replace('/', '_'),
    )
    return Runner(**(settings | changes))
