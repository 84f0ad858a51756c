# InfoNCE: MoCo v2, whatever the labels.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(head=dict(loss=dict(type='InfoNCELoss')))
