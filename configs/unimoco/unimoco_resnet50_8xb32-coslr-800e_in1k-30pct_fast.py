# 30 % of the labels.
_base_ = 'unimoco_resnet50_8xb32-coslr-800e_in1k_fast.py'

train_dataloader = dict(dataset=dict(label_ratio=0.3))
