# SGD with a cosine learning rate over 200 epochs, for a total batch of 256.

# ------------------------- usually changed -------------------------
max_epochs = 200
lr = 0.03  # for base_batch_size images a step; --auto-scale-lr rescales it
base_batch_size = 256  # GPUs x images per GPU
val_interval = 10  # epochs between two kNN evaluations
# -------------------------------------------------------------------

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr, momentum=0.9, weight_decay=1e-4),
)

param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        by_epoch=True,
        begin=0,
        end=max_epochs,
    )
]

train_cfg = dict(
    type='ExactEpochLoop',
    max_epochs=max_epochs,
    val_interval=val_interval,
)

auto_scale_lr = dict(base_batch_size=base_batch_size)

# Names of this file alone; the resolved config keeps only what counts.
del max_epochs, lr, base_batch_size, val_interval
