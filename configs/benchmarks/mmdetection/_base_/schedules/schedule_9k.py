# 9 000 iterations of 16 images; learning rate x0.1 at 2/3 and 8/9, as in the
# longer schedules.
_base_ = 'schedule_24k.py'

train_cfg = dict(max_iters=9000)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500
    ),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=9000,
        milestones=[6000, 8000],
        gamma=0.1,
    ),
]
