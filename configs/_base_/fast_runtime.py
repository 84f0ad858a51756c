# Runtime of pre-training: default_runtime.py with a faster step. Results
# change by rounding only; docs/configs.md ("A faster step") explains each
# option. Mixed precision and the fused optimizer belong to optim_wrapper, in
# schedules/.
_base_ = 'default_runtime.py'

# Loss and log values are read from the GPU when they are logged, not every
# step.
default_hooks = dict(runtime_info=dict(type='DelayedRuntimeInfoHook'))

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StepOptionsHook', channels_last=True, compile='gpu'),
]

# On several GPUs: gradients live in the buckets that are reduced. (With
# static_graph torch cannot accumulate gradients.)
model_wrapper_cfg = dict(
    type='MMDistributedDataParallel',
    broadcast_buffers=False,
    gradient_as_bucket_view=True,
)
