# Unlabeled keys are no negatives of labeled queries.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k-10pct.py'

model = dict(head=dict(ignore_unlabeled_keys=True))
