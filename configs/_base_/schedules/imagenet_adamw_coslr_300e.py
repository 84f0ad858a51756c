# AdamW with 40 epochs of warm-up and a cosine over 300 epochs, as MoCo v3
# trains its ViT (1.5e-4 per 256 images), for a total batch of 1024.

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',  # 'float32' switches mixed precision off
    loss_scale=dict(enabled=False),  # bfloat16 needs none
    constructor='FusedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=6e-4, weight_decay=0.1),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        end=40,
        convert_to_iter_based=True,
    ),
    # Without T_max and end it ends with train_cfg.max_epochs.
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=40,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='ExactEpochLoop', max_epochs=300, val_interval=10)

# Total batch that lr is for; --auto-scale-lr rescales it.
auto_scale_lr = dict(base_batch_size=1024)
