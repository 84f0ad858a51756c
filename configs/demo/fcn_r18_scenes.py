# Semantic segmentation of scenes of Fashion-MNIST objects, from a demo
# checkpoint: a small FCN for two CPU cores. All layers are trained.
_base_ = [
    '_base_/scenes.py',
    'mmseg::_base_/models/fcn_r50-d8.py',
    'mmseg::_base_/default_runtime.py',
]

import os

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
        stem_channels=16,  # as in pre-training
        base_channels=16,
        # Strides as in pre-training, not dilated: the same features, and a
        # step takes a third of the multiplications.
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        norm_cfg=dict(type='BN', requires_grad=True),
        init_cfg=dict(
            type='mmpretrain.Pretrained',
            checkpoint=os.environ.get('PRETRAINED', ''),
            prefix='backbone.',
        ),
    ),
    decode_head=dict(
        # Without the last stage: in pre-training its map was one pixel, so
        # the outer weights of its kernels never saw anything but padding.
        input_transform='resize_concat',
        in_index=(1, 2),
        in_channels=(32, 64),
        channels=64,
        num_convs=1,
        num_classes=11,
        norm_cfg=dict(type='BN', requires_grad=True),
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
metainfo = dict(
    classes=(
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
    ),
    # Tol's "muted" colours; black is background, gray the last class.
    palette=[
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
    ],
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='BaseSegDataset',
        data_root='data/demo_scenes/',
        img_suffix='.png',
        seg_map_suffix='.png',
        metainfo=metainfo,
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
        type='BaseSegDataset',
        data_root='data/demo_scenes/',
        img_suffix='.png',
        seg_map_suffix='.png',
        metainfo=metainfo,
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=36)
auto_scale_lr = dict(base_batch_size=8)

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
