# A query's own older keys are left out, of negatives and positives.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(head=dict(exclude_own_keys=True))
