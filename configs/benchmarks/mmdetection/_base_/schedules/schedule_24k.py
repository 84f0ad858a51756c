# The 24 000 iterations of 16 images of MoCo on VOC.
_base_ = 'schedule_1x.py'

train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=24000,
    val_interval=3000,
)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100
    ),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=24000,
        milestones=[18000, 22000],
        gamma=0.1,
    ),
]
