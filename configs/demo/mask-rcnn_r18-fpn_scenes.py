# Detection and instance segmentation on scenes of Fashion-MNIST objects, from
# a demo checkpoint: a small Mask R-CNN for two CPU cores. All layers are
# trained, BN included, as in MoCo's protocol.
_base_ = [
    '_base_/scenes.py',
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
]

import os

model = dict(
    data_preprocessor=dict(
        # As in pre-training: gray images, the same for each channel.
        mean=[73.0] * 3,
        std=[90.0] * 3,
        bgr_to_rgb=False,
    ),
    backbone=dict(
        depth=18,
        stem_channels=16,  # as in pre-training
        base_channels=16,
        frozen_stages=-1,
        norm_cfg=dict(type='BN'),
        norm_eval=False,
        init_cfg=dict(
            _delete_=True,
            type='mmpretrain.Pretrained',
            checkpoint=os.environ.get('PRETRAINED', ''),
            prefix='backbone.',
        ),
    ),
    neck=dict(
        in_channels=[16, 32, 64, 128],
        out_channels=64,
        num_outs=4,
        norm_cfg=dict(type='BN'),
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # Objects of 24 to 64 pixels, parts of them hidden.
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        # COCO's 56 would send all of them to the finest level.
        bbox_roi_extractor=dict(
            out_channels=64,
            finest_scale=16,
            roi_layer=dict(sampling_ratio=1),
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10),
        mask_roi_extractor=dict(
            out_channels=64,
            finest_scale=16,
            roi_layer=dict(sampling_ratio=1),
        ),
        mask_head=dict(
            num_convs=2,
            in_channels=64,
            conv_out_channels=32,
            num_classes=10,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(max_per_img=20),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]
# Class names of Fashion-MNIST.
metainfo = dict(
    classes=(
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
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='CocoDataset',
        data_root='data/demo_scenes/',
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/train/'),
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
        type='CocoDataset',
        data_root='data/demo_scenes/',
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file='data/demo_scenes/annotations/instances_val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator

optim_wrapper = dict(
    paramwise_cfg=dict(
        # AdamW at the full rate soon forgets the backbone.
        custom_keys=dict(backbone=dict(lr_mult=0.3))
    ),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=60, val_interval=60)
auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=2),
)
