# The runtime of schedules that are counted in iterations.
_base_ = 'runtime.py'

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3000))
log_processor = dict(by_epoch=False)
