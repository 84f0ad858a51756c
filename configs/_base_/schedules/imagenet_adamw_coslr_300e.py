# AdamW with 40 epochs of warm-up and a cosine over 300 epochs, as MoCo v3
# trains its ViT (1.5e-4 for each 256 images), for a total batch of 1024.

# ------------------------- usually changed -------------------------
max_epochs = 300
warmup_epochs = 40
lr = 6e-4  # for base_batch_size images a step; --auto-scale-lr rescales it
base_batch_size = 1024  # GPUs x images per GPU
val_interval = 10  # epochs between two kNN evaluations
# -------------------------------------------------------------------

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.1),
)

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs - warmup_epochs,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(
    type='ExactEpochLoop',
    max_epochs=max_epochs,
    val_interval=val_interval,
)

auto_scale_lr = dict(base_batch_size=base_batch_size)

# Names of this file alone; the resolved config keeps only what counts.
del max_epochs, warmup_epochs, lr, base_batch_size, val_interval
