# UniMoCo on the ViT-S/16 and projector of MoCo v3. This project's choice: the
# published code has no ViT.

# ------------------------- usually changed -------------------------
queue_len = 65536  # K, the number of keys (and labels) remembered
temperature = 0.2  # tau, by which every similarity is divided
momentum = 0.01  # of the key encoder at the start: m = 0.99 ...
end_momentum = 0.0  # ... rising to m = 1 along a cosine
feat_dim = 256  # C, the length of queries and keys
num_classes = 1000  # labels outside 0 ... num_classes - 1 are an error
# -------------------------------------------------------------------

model = dict(
    type='UniMoCo',
    momentum=momentum,
    end_momentum=end_momentum,
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
        out_channels=feat_dim,
        num_layers=3,
        with_bias=False,
        with_last_bn=True,
        with_last_bn_affine=False,
        with_last_bias=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),  # keys are shuffled, so not SyncBN
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
del queue_len, temperature, momentum, end_momentum, feat_dim, num_classes
