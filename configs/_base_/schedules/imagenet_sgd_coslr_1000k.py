# SGD with a cosine learning rate over a million steps, for a total batch of
# 256: about 200 epochs of ImageNet, counted in iterations. Goes with
# ../iter_runtime.py.

# ------------------------- usually changed -------------------------
max_iters = 1_000_000
lr = 0.03  # for base_batch_size images a step; --auto-scale-lr rescales it
base_batch_size = 256  # GPUs x images per GPU
val_interval = 50_000  # steps between two kNN evaluations
# -------------------------------------------------------------------

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr, momentum=0.9, weight_decay=1e-4),
)

param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=max_iters,
        by_epoch=False,
        begin=0,
        end=max_iters,
    )
]

train_cfg = dict(
    type='ExactIterLoop',
    max_iters=max_iters,
    val_interval=val_interval,
)

auto_scale_lr = dict(base_batch_size=base_batch_size)

# Names of this file alone; the resolved config keeps only what counts.
del max_iters, lr, base_batch_size, val_interval
