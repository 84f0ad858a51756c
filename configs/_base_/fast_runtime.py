# In place of default_runtime.py: a faster step on recent GPUs (Ampere and
# later). Results change by rounding alone; docs/configs.md tells each switch.
#
# The optimizer belongs to the schedule, so a config that lists this file in
# `_base_` also says
#
#     optim_wrapper = _base_.fast_optim_wrapper

_base_ = 'default_runtime.py'

# bfloat16, which needs no loss scale, and an optimizer step of one kernel.
fast_optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    constructor='FusedOptimWrapperConstructor',
)

# Loss and log values are read when they are logged, not every step.
default_hooks = dict(runtime_info=dict(type='DelayedRuntimeInfoHook'))

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StepOptionsHook', channels_last=True, compile=True),
]

# Of several GPUs: gradients live in the buckets that are reduced, and every
# step has the same graph.
model_wrapper_cfg = dict(
    type='MMDistributedDataParallel',
    broadcast_buffers=False,
    gradient_as_bucket_view=True,
    static_graph=True,
)
