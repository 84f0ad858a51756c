# Linear probe of a demo checkpoint: the published protocol in the small, with
# a frozen backbone (BN in evaluation mode), no weight decay, crops and flips.
_base_ = ['../_base_/default_runtime.py']

# ------------------------- usually changed -------------------------
checkpoint = ''  # --cfg-options model.backbone.init_cfg.checkpoint=...
max_epochs = 10
batch_size = 256
lr = 0.3
width = 16  # as in pre-training
num_workers = 2  # views take longer than the frozen backbone
# -------------------------------------------------------------------

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=width,
        base_channels=width,
        norm_cfg=dict(type='BN'),
        frozen_stages=4,
        init_cfg=dict(
            type='Pretrained', checkpoint=checkpoint, prefix='backbone.'
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=8 * width,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1,),
    ),
)
data_preprocessor = dict(
    num_classes=10, mean=[73.0] * 3, std=[90.0] * 3, to_rgb=False
)

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    drop_last=False,
    persistent_workers=num_workers > 0,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='DemoFashionMNIST',
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
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='DemoFashionMNIST',
        split='test',
        pipeline=[dict(type='PackInputs')],
    ),
)
test_dataloader = val_dataloader

val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
auto_scale_lr = dict(base_batch_size=batch_size)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=2, save_best=None),
)
# On a CPU this layout takes 40 % off a step.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StepOptionsHook', channels_last=True),
]
randomness = dict(seed=0)

# Names of this file alone; the resolved config keeps only what counts.
del checkpoint, max_epochs, batch_size, lr, width, num_workers
