# mmdet's 12 epochs; as in detectron2, norms are not decayed.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
