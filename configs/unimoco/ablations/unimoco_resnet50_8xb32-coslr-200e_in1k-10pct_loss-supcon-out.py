# SupCon, mean over positives outside the log.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k-10pct.py'

model = dict(head=dict(loss=dict(type='SupConLoss', reduction_position='out')))
