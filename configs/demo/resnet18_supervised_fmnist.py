# Baseline: the network of the demo, trained by cross-entropy on labeled images
# alone, with optimizer, images per step and steps of pre-training.
_base_ = ['resnet18_linear_fmnist.py']

import torch

model = dict(
    backbone=dict(
        frozen_stages=-1,
        # Instead of a checkpoint, what ResNet does by default.
        init_cfg=[
            dict(type='Kaiming', layer=['Conv2d']),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ],
    ),
)

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    drop_last=True,
    dataset=dict(
        _delete_=True,
        type='LabeledSubset',
        dataset=dict(
            type='PartialLabels',
            label_ratio=1.0,
            seed=0,
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
                    dict(type='ColorJitter', brightness=0.4, backend='cv2'),
                    dict(type='PackInputs'),
                ],
            ),
        ),
    ),
)

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='AdamW',
        lr=1e-3,
        weight_decay=0.05,
        fused=torch.__version__ >= '2.4',
    ),
)
train_cfg = dict(max_epochs=28, val_interval=28)
auto_scale_lr = dict(base_batch_size=64)
