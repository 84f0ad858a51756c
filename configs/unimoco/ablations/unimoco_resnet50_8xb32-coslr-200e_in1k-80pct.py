# 80 % of the labels, not all.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

train_dataloader = dict(dataset=dict(label_ratio=0.8))
