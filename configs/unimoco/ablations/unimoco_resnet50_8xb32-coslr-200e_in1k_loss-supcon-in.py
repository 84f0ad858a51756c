# SupCon, mean over positives inside the log.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(head=dict(loss=dict(type='SupConLoss', reduction_position='in')))
