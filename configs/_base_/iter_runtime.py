# Runtime of pre-training whose length is given in iterations; goes with
# schedules/imagenet_sgd_coslr_1000k.py.
_base_ = 'fast_runtime.py'

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5000),
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
