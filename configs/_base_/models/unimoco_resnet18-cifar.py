# UniMoCo on a ResNet-18 with the CIFAR stem (3x3, no pooling), for one GPU.
# Queue, temperature and momentum are this project's choice, not published.

# ------------------------- usually changed -------------------------
queue_len = 4096  # K: 8 batches of 512
temperature = 0.1  # tau
momentum = 0.01  # of the key encoder: 0.01 means m = 0.99
feat_dim = 128  # C, the length of queries and keys
num_classes = 10  # labels outside 0 ... num_classes - 1 are an error
num_splits = 8  # virtual devices, of at least two images each
# -------------------------------------------------------------------

model = dict(
    type='UniMoCo',
    momentum=momentum,
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        num_stages=4,
        out_indices=(3,),
        style='pytorch',
        # On one GPU a plain BN lets the query recognise its key by the
        # statistics of the batch they share.
        norm_cfg=dict(type='SplitBatchNorm', num_splits=num_splits),
    ),
    neck=dict(
        type='MoCoV2Neck',
        in_channels=512,
        hid_channels=512,
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
del queue_len, temperature, momentum, feat_dim, num_classes, num_splits
