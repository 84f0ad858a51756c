# The demo: a narrow ResNet-18 on 6 000 images of Fashion-MNIST with all
# labels, tuned for ten minutes on two CPU cores.
_base_ = ['_base_/fashion_mnist.py']

import torch

model = dict(
    type='UniMoCo',
    momentum=0.01,  # m = 0.99
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,  # ResNet-18 has 64
        base_channels=16,
        norm_cfg=dict(type='BN'),
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
        queue_len=2048,  # a third of the images: few older keys of its own
        temperature=0.2,
        num_classes=10,
        loss=dict(type='UniConLoss'),
    ),
)
data_preprocessor = dict(type='SelfSupDataPreprocessor')

# The images are gray: no hue or saturation. On a black background brightness
# changes the contrast as well, and mmcv's contrast alone takes longer than the
# rest of this pipeline.
__view = [
    dict(type='RandomResizedCrop', scale=28, crop_ratio_range=(0.6, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.4, backend='cv2'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    drop_last=True,
    persistent_workers=True,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='PartialLabels',
        label_ratio=1.0,  # 0 to 1, class-balanced
        seed=0,
        dataset=dict(
            type='NpzImages',
            ann_file={{_base_.val_dataloader.dataset.ann_file}},
            split='train',
            pipeline=[
                dict(type='MultiView', num_views=2, transforms=[__view]),
                dict(type='PackInputs'),
            ],
        ),
    ),
)

# kNN: every training image, with its label, votes on the test images.
val_cfg = dict(
    type='KNNValLoop',
    k=50,
    temperature=0.07,
    bank_dataloader=dict(
        batch_size=500,
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='NpzImages',
            ann_file={{_base_.val_dataloader.dataset.ann_file}},
            split='train',
            pipeline=[dict(type='PackInputs')],
        ),
    ),
)
test_cfg = dict(val_cfg, type='KNNTestLoop')
val_evaluator = dict(type='Accuracy', topk=(1,), prefix='knn')
test_evaluator = val_evaluator

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
train_cfg = dict(type='ExactEpochLoop', max_epochs=28, val_interval=4)
auto_scale_lr = dict(base_batch_size=64)
