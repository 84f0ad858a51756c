# The runtime of runs whose length, checkpoints and log are counted in
# iterations; goes with schedules/imagenet_sgd_coslr_1000k.py.
_base_ = 'default_runtime.py'

# A kill costs at most so many steps.
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5000),
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
