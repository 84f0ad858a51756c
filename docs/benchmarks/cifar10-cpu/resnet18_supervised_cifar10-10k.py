# Reference: the same network by cross-entropy on all labels, as many steps.
_base_ = 'unimoco_resnet18_cifar10-10k.py'

model = dict(
    _delete_=True,
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,
        base_channels=16,
        norm_cfg=dict(type='BN'),
        zero_init_residual=False,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss'),
        topk=(1,),
    ),
)
data_preprocessor = dict(
    _delete_=True,
    num_classes=10,
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,
)
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(
                    type='RandomResizedCrop',
                    scale=32,
                    crop_ratio_range=(0.3, 1.0),
                ),
                dict(type='RandomFlip', prob=0.5),
                dict(
                    type='ColorJitter',
                    brightness=0.4,
                    contrast=0.4,
                    saturation=0.4,
                    backend='cv2',
                ),
                dict(type='PackInputs'),
            ]
        )
    )
)
val_cfg = dict(_delete_=True)
test_cfg = val_cfg
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(type='StepOptionsHook', channels_last=True),
]
