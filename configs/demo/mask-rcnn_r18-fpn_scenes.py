# Detection and instance segmentation on scenes of Fashion-MNIST objects, from
# a demo checkpoint: a small Mask R-CNN for two CPU cores. All layers are
# trained, BN included, as in MoCo's protocol.
_base_ = [
    '_base_/scenes.py',
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
]

import os

# ------------------------- usually changed -------------------------
checkpoint = os.environ.get('PRETRAINED', '')
data_root = 'data/demo_scenes/'  # of make_demo_scenes.py
max_epochs = 60
batch_size = 8
lr = 1e-3
backbone_lr_mult = 0.3  # AdamW at the whole rate soon forgets the backbone
width = 16  # as in pre-training
channels = 64  # of the FPN and the heads
num_workers = 1
# -------------------------------------------------------------------

norm_cfg = dict(type='BN')
classes = (
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

model = dict(
    data_preprocessor=dict(
        # As in pre-training: gray images, the same for each channel.
        mean=[73.0] * 3,
        std=[90.0] * 3,
        bgr_to_rgb=False,
    ),
    backbone=dict(
        depth=18,
        stem_channels=width,
        base_channels=width,
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(
            _delete_=True,
            type='mmpretrain.Pretrained',
            checkpoint=checkpoint,
            prefix='backbone.',
        ),
    ),
    neck=dict(
        in_channels=[width, 2 * width, 4 * width, 8 * width],
        out_channels=channels,
        num_outs=4,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        # Objects of 24 to 64 pixels, parts of them hidden.
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        # COCO's 56 would send all of them to the finest level.
        bbox_roi_extractor=dict(
            out_channels=channels,
            finest_scale=16,
            roi_layer=dict(sampling_ratio=1),
        ),
        bbox_head=dict(
            in_channels=channels, fc_out_channels=256, num_classes=10
        ),
        mask_roi_extractor=dict(
            out_channels=channels,
            finest_scale=16,
            roi_layer=dict(sampling_ratio=1),
        ),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels // 2,
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
dataset = dict(
    type='CocoDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        **dataset,
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
        **dataset,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/instances_val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(lr=lr),
    paramwise_cfg=dict(
        custom_keys=dict(backbone=dict(lr_mult=backbone_lr_mult))
    ),
)
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs
)
auto_scale_lr = dict(base_batch_size=batch_size)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=2),
)

# Names of this file alone; the resolved config keeps only what counts.
del checkpoint, data_root, max_epochs, batch_size, lr, backbone_lr_mult, width
del channels, num_workers, norm_cfg, classes, dataset
