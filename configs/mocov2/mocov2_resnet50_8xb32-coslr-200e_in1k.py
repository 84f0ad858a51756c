# MoCo v2, 200 epochs, by this project's code: no labels and plain InfoNCE.
_base_ = '../unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k-0pct.py'

model = dict(head=dict(loss=dict(type='InfoNCELoss')))
