# The same optimizer over a million iterations, about 200 epochs of ImageNet,
# for a total batch of 256. Goes with ../iter_runtime.py.
_base_ = 'imagenet_sgd_coslr_200e.py'

param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]
train_cfg = dict(
    _delete_=True,
    type='ExactIterLoop',
    max_iters=1_000_000,
    val_interval=50_000,
)
