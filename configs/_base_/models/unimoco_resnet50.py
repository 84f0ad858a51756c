# UniMoCo on a ResNet-50 as published.
model = dict(
    type='UniMoCo',
    momentum=0.001,  # of the key encoder: m = 0.999
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='BN'),
        zero_init_residual=False,
    ),
    neck=dict(
        type='MoCoV2Neck',
        in_channels=2048,
        hid_channels=2048,
        out_channels=128,
        with_avg_pool=True,
    ),
    head=dict(
        type='UniMoCoHead',
        feat_dim=128,  # C, dimension of queries and keys
        queue_len=65536,  # K, number of keys and labels in the queues
        temperature=0.2,  # tau
        num_classes=1000,  # labels outside 0 ... 999 are an error
        loss=dict(type='UniConLoss'),
    ),
)
