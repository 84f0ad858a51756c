# The same optimiser over a million steps, about 200 epochs of ImageNet, for a
# total batch of 256. Goes with ../iter_runtime.py.
_base_ = 'imagenet_sgd_coslr_200e.py'

# ------------------------- usually changed -------------------------
max_iters = 1_000_000
val_interval = 50_000  # steps between two kNN evaluations
# -------------------------------------------------------------------

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
    _delete_=True,
    type='ExactIterLoop',
    max_iters=max_iters,
    val_interval=val_interval,
)

# Names of this file alone; the resolved config keeps only what counts.
del max_iters, val_interval
