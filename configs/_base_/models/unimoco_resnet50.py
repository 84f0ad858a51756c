# UniMoCo on a ResNet-50 as published: MLP neck, 65 536 keys, tau 0.2.

# ------------------------- usually changed -------------------------
queue_len = 65536  # K, the number of keys (and labels) remembered
temperature = 0.2  # tau, by which every similarity is divided
momentum = 0.001  # of the key encoder: 0.001 means m = 0.999
feat_dim = 128  # C, the length of queries and keys
num_classes = 1000  # labels outside 0 ... num_classes - 1 are an error
# -------------------------------------------------------------------

model = dict(
    type='UniMoCo',
    momentum=momentum,
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
        out_channels=feat_dim,
        with_avg_pool=True,
    ),
    head=dict(
        type='UniMoCoHead',
        feat_dim=feat_dim,
        queue_len=queue_len,
        temperature=temperature,
        num_classes=num_classes,
        loss=dict(type='UniConLoss'),
    ),
)

# Names of this file alone; the resolved config keeps only what counts.
del queue_len, temperature, momentum, feat_dim, num_classes
