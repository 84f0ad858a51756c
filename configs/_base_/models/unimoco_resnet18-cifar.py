# UniMoCo on a ResNet-18 with the CIFAR stem (3x3, no pooling), for one GPU.
# Queue, temperature, momentum and the weight of the own key are this project's
# choice, not published.
model = dict(
    type='UniMoCo',
    momentum=0.01,  # of the key encoder: m = 0.99
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        num_stages=4,
        out_indices=(3,),
        style='pytorch',
        # On one GPU plain BN would reveal which key belongs to a query. The
        # batch needs at least two images per split.
        norm_cfg=dict(type='SplitBatchNorm', num_splits=8),
    ),
    neck=dict(
        type='MoCoV2Neck',
        in_channels=512,
        hid_channels=512,
        out_channels=128,
        with_avg_pool=True,
    ),
    head=dict(
        type='UniMoCoHead',
        feat_dim=128,  # C, dimension of queries and keys
        queue_len=4096,  # K: 8 batches of 512
        temperature=0.1,  # tau
        num_classes=10,  # labels outside 0 ... 9 are an error
        # 1 as published; see docs/method.md, "A slow start with labels".
        loss=dict(type='UniConLoss', own_key_weight='balanced'),
    ),
)
