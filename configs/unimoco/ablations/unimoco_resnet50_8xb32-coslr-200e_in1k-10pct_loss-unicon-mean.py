# UniCon with the mean over positives in place of the sum.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k-10pct.py'

model = dict(head=dict(loss=dict(positive_reduction='mean')))
