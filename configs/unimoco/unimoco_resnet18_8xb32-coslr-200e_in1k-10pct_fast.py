# 10 % of the labels.
_base_ = 'unimoco_resnet18_8xb32-coslr-200e_in1k_fast.py'

train_dataloader = dict(dataset=dict(label_ratio=0.1))
