# The demo: 6 000 images of Fashion-MNIST, which come with the package, a
# narrow ResNet-18, all labels. Found for two CPU cores and a coffee break.
_base_ = ['../_base_/default_runtime.py']

from importlib import import_module

# ------------------------- usually changed -------------------------
label_ratio = 1.0  # 0 ... 1, class-balanced and nested
label_seed = 0  # which images keep their label
max_epochs = 28
batch_size = 64
lr = 1e-3
queue_len = 2048  # K: a third of the images, so own older keys are rare
temperature = 0.2  # tau
momentum = 0.01  # of the key encoder: 0.01 means m = 0.99
width = 16  # channels of the first stage; ResNet-18 has 64
crop_ratio_range = (0.6, 1.0)  # part of the image that a view shows
brightness = 0.4  # on black ground it changes the contrast as well
val_interval = 4  # epochs between two kNN evaluations
num_workers = 1  # processes that make views, beside the one that trains
# -------------------------------------------------------------------

model = dict(
    type='UniMoCo',
    momentum=momentum,
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=width,
        base_channels=width,
        norm_cfg=dict(type='BN'),
        zero_init_residual=False,
    ),
    neck=dict(
        type='MoCoV2Neck',
        in_channels=8 * width,
        hid_channels=8 * width,
        out_channels=64,
        with_avg_pool=True,
    ),
    head=dict(
        type='UniMoCoHead',
        feat_dim=64,
        queue_len=queue_len,
        temperature=temperature,
        num_classes=10,
        loss=dict(type='UniConLoss'),
    ),
)

# The gray value is in all three channels: the same for each.
data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[73.0] * 3,
    std=[90.0] * 3,
    to_rgb=False,
)

view_pipeline = [
    dict(
        type='RandomResizedCrop', scale=28, crop_ratio_range=crop_ratio_range
    ),
    dict(type='RandomFlip', prob=0.5),
    # No other jitter: gray images have no colour, and mmcv's contrast alone
    # takes longer than all the rest of this pipeline.
    dict(type='ColorJitter', brightness=brightness, backend='cv2'),
]
train_pipeline = [
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    drop_last=True,
    persistent_workers=num_workers > 0,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='PartialLabels',
        label_ratio=label_ratio,
        seed=label_seed,
        dataset=dict(
            type='DemoFashionMNIST', split='train', pipeline=train_pipeline
        ),
    ),
)

# kNN: every training image, with its label, votes on the test images.
bank_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='DemoFashionMNIST', split='train', pipeline=test_pipeline
    ),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='DemoFashionMNIST', split='test', pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader

val_cfg = dict(
    type='KNNValLoop',
    bank_dataloader=bank_dataloader,
    k=50,
    temperature=0.07,
)
test_cfg = dict(
    type='KNNTestLoop',
    bank_dataloader=bank_dataloader,
    k=50,
    temperature=0.07,
)
val_evaluator = dict(type='Accuracy', topk=(1,), prefix='knn')
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW',
        lr=lr,
        weight_decay=0.05,
        # The same to rounding, in a tenth of the time; on a CPU since 2.4.
        fused=import_module('torch').__version__ >= '2.4',
    ),
)
# Without T_max and end: half a cosine over max_epochs, whatever it is.
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(
    type='ExactEpochLoop',
    max_epochs=max_epochs,
    val_interval=val_interval,
)
auto_scale_lr = dict(base_batch_size=batch_size)

# The last two: one is whole even if the other was being written when the
# power went. The demo reports the last epoch, so no best one is kept.
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=2, save_best=None),
)
# On a CPU this layout takes 40 % off a training step.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StepOptionsHook', channels_last=True),
]
randomness = dict(seed=0)

# Names of this file alone; the resolved config keeps only what counts.
del (
    import_module,
    label_ratio,
    label_seed,
    max_epochs,
    batch_size,
    lr,
    queue_len,
    temperature,
    momentum,
    width,
    crop_ratio_range,
    brightness,
    val_interval,
    num_workers,
    bank_dataloader,
)
