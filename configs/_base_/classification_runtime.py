# Runtime of all transfers to classification.
_base_ = 'default_runtime.py'

default_hooks = dict(
    checkpoint=dict(
        type='ExactCheckpointHook',
        interval=10,
        max_keep_ckpts=3,
        save_best='accuracy/top1',
        rule='greater',
    ),
)
