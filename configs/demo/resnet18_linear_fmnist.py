# Linear probe of a demo checkpoint, the published protocol scaled down: frozen
# backbone (BN in evaluation mode), no weight decay, crops and flips. Needs
# --cfg-options model.backbone.init_cfg.checkpoint=...
_base_ = ['_base_/fashion_mnist.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,  # as in pre-training
        base_channels=16,
        norm_cfg=dict(type='BN'),
        zero_init_residual=False,  # for random weights, too
        frozen_stages=4,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1,),
    ),
)
data_preprocessor = dict(num_classes=10)

train_dataloader = dict(
    batch_size=256,
    num_workers=2,  # the frozen backbone is faster than one worker
    drop_last=False,
    persistent_workers=True,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='NpzImages',
        ann_file={{_base_.val_dataloader.dataset.ann_file}},
        split='train',
        pipeline=[
            dict(
                type='RandomResizedCrop',
                scale=28,
                crop_ratio_range=(0.6, 1.0),
            ),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)

val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.3, momentum=0.9, weight_decay=0.0),
)
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=10)
auto_scale_lr = dict(base_batch_size=256)
