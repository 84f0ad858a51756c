# Linear probe of unimoco_resnet18_small-images.py: frozen backbone.
# --cfg-options model.backbone.init_cfg.checkpoint=PATH \
#     model.head.num_classes=N
_base_ = [
    '../_base_/datasets/small_images_bs64_linear.py',
    '../_base_/classification_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,  # as in pre-training
        base_channels=16,
        norm_cfg=dict(type='BN'),
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=2,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss'),
        topk=(1,),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01),
    ),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='ExactEpochLoop', max_epochs=50, val_interval=10)
auto_scale_lr = dict(base_batch_size=64)
