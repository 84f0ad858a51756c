# UniMoCo on the ViT-S/16 and projector of MoCo v3. This project's choice: the
# published code has no ViT.
model = dict(
    type='UniMoCo',
    momentum=0.01,  # of the key encoder at the start: m = 0.99 ...
    end_momentum=0.0,  # ... rising to m = 1 along a cosine
    backbone=dict(
        type='MoCoV3ViT',
        arch='mocov3-small',  # embed_dims = 384
        img_size=224,
        patch_size=16,
        stop_grad_conv1=True,  # a random patch projection trains stably
    ),
    neck=dict(
        type='NonLinearNeck',
        in_channels=384,
        hid_channels=4096,
        out_channels=256,
        num_layers=3,
        with_bias=False,
        with_last_bn=True,
        with_last_bn_affine=False,
        with_last_bias=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),  # not SyncBN, as keys are shuffled
    ),
    head=dict(
        type='UniMoCoHead',
        feat_dim=256,  # C, dimension of queries and keys
        queue_len=65536,  # K, number of keys and labels in the queues
        temperature=0.2,  # tau
        num_classes=1000,  # labels outside 0 ... 999 are an error
        loss=dict(type='UniConLoss'),
    ),
)
