# Semantic segmentation of scenes of Fashion-MNIST objects, from a demo
# checkpoint: a small FCN for two CPU cores. All layers are trained.
_base_ = [
    '_base_/scenes.py',
    'mmseg::_base_/models/fcn_r50-d8.py',
    'mmseg::_base_/default_runtime.py',
]

import os

# ------------------------- usually changed -------------------------
checkpoint = os.environ.get('PRETRAINED', '')
data_root = 'data/demo_scenes/'  # of make_demo_scenes.py
max_epochs = 36
batch_size = 8
lr = 1e-3
width = 16  # as in pre-training
channels = 64  # of the head
num_workers = 1
# -------------------------------------------------------------------

norm_cfg = dict(type='BN', requires_grad=True)
classes = (
    'background',
    'T-shirt/top',
    'Trouser',
    'Pullover',
    'Dress',
    'Coat',
    'Sandal',
    'Shirt',
    'Sneaker',
    'Bag',
    'Ankle boot',
)
# Tol's "muted" colours; black is background, gray the last class.
palette = [
    (0, 0, 0),
    (204, 102, 119),
    (51, 34, 136),
    (221, 204, 119),
    (17, 119, 51),
    (136, 204, 238),
    (136, 34, 85),
    (68, 170, 153),
    (153, 153, 51),
    (170, 68, 153),
    (128, 128, 128),
]

model = dict(
    data_preprocessor=dict(
        # As in pre-training: gray images, the same for each channel.
        mean=[73.0] * 3,
        std=[90.0] * 3,
        bgr_to_rgb=False,
        size=(128, 128),
    ),
    pretrained=None,
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=width,
        base_channels=width,
        # Strides as in pre-training, not dilated: the same features, and a
        # step takes a third of the multiplications.
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='mmpretrain.Pretrained',
            checkpoint=checkpoint,
            prefix='backbone.',
        ),
    ),
    decode_head=dict(
        # Without the last stage: in pre-training its map was one pixel, so
        # the outer weights of its kernels never saw anything but padding.
        input_transform='resize_concat',
        in_index=(1, 2),
        in_channels=(2 * width, 4 * width),
        channels=channels,
        num_convs=1,
        num_classes=11,
        norm_cfg=norm_cfg,
        # Six pixels of seven are background: unweighted, nothing else is
        # predicted for hundreds of steps.
        loss_decode=dict(class_weight=[0.1] + [1.0] * 10),
    ),
    auxiliary_head=None,
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    img_suffix='.png',
    seg_map_suffix='.png',
    metainfo=dict(classes=classes, palette=palette),
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=lr))
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs
)
auto_scale_lr = dict(base_batch_size=batch_size)

# On a CPU this layout takes time off a training step.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmpretrain.StepOptionsHook', channels_last=True),
]
log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)

# Names of this file alone; the resolved config keeps only what counts.
del checkpoint, data_root, max_epochs, batch_size, lr, width, channels
del num_workers, norm_cfg, classes, palette, dataset
