# UniMoCo on small images of your own (32 to 96 pixels): a ResNet-18 of a
# quarter of the width, so that a CPU is enough. On a GPU
# model.backbone.type=ResNet_CIFAR (no stride and no pooling in the stem, 16
# times the arithmetic) sees more detail; then also in the two configs that
# start from the checkpoint.
# `export OWN_IMAGES=...` names the folder with train/ and val/.
_base_ = [
    '../_base_/datasets/small_images_bs64_unimoco.py',
    '../_base_/default_runtime.py',
]

import torch

model = dict(
    type='UniMoCo',
    momentum=0.01,  # of the key encoder: m = 0.99
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,  # ResNet-18 has 64
        base_channels=16,
        # On one GPU plain BN would reveal which key belongs to a query. The
        # batch needs at least two images per split.
        norm_cfg=dict(type='SplitBatchNorm', num_splits=4),
        zero_init_residual=False,
    ),
    neck=dict(
        type='MoCoV2Neck',
        in_channels=128,
        hid_channels=128,
        out_channels=64,
        with_avg_pool=True,
    ),
    head=dict(
        type='UniMoCoHead',
        feat_dim=64,
        queue_len=256,  # well below the number of images
        temperature=0.2,
        num_classes=None,  # any number
        # Not as published (1): with labels short runs get further, see
        # docs/method.md, "A slow start with labels".
        loss=dict(type='UniConLoss', own_key_weight='balanced'),
    ),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW',
        lr=1e-3,
        weight_decay=0.05,
        # Equal up to rounding, in a tenth of the time; on a CPU since 2.4.
        fused=torch.__version__ >= '2.4',
    ),
)
param_scheduler = [
    # Without T_max and end: half a cosine over max_epochs, whatever it is.
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='ExactEpochLoop', max_epochs=100, val_interval=10)
auto_scale_lr = dict(base_batch_size=64)

default_hooks = dict(checkpoint=dict(interval=5))
# On a CPU channels-last takes a good part off a training step.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StepOptionsHook', channels_last=True),
]
