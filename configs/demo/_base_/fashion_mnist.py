# What pre-training and linear probe on the demo's images share: test images,
# runtime and seed.
_base_ = ['../../_base_/default_runtime.py']

# Gray images, repeated in three channels: one mean and std for all.
data_preprocessor = dict(mean=[73.0] * 3, std=[90.0] * 3, to_rgb=False)

val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='NpzImages',
        ann_file='{{ fileDirname }}/../../../demo/data/'
        'fashion_mnist_subset.npz',
        split='test',
        pipeline=[dict(type='PackInputs')],
    ),
)
test_dataloader = val_dataloader

param_scheduler = [
    # Without T_max and end: half a cosine over max_epochs, whatever it is.
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]

default_hooks = dict(
    logger=dict(interval=10),
    # If a crash damages the last checkpoint, the one before is complete. The
    # demo reports the last epoch, so no best checkpoint is kept.
    checkpoint=dict(max_keep_ckpts=2, save_best=None),
)
# On a CPU channels-last takes 40 % off a training step.
custom_hooks = [
    # The narrow network was tuned with plain batch norm on one process.
    dict(type='PreflightHook', accept=('batch norm',)),
    *_base_.custom_hooks[1:],
    dict(type='StepOptionsHook', channels_last=True),
]
randomness = dict(seed=0)
