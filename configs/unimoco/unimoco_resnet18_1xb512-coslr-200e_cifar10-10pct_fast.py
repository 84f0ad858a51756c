# 10 % of the labels.
_base_ = 'unimoco_resnet18_1xb512-coslr-200e_cifar10_fast.py'

train_dataloader = dict(dataset=dict(label_ratio=0.1))
