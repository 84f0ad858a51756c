# 10 % of the labels.
_base_ = 'unimoco_resnet50_1xb256-coslr-200e_in1k_fast.py'

train_dataloader = dict(dataset=dict(label_ratio=0.1))
