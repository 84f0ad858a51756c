# MoCo v2 on CIFAR-10, one GPU.
_base_ = '../unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10-0pct.py'

model = dict(head=dict(loss=dict(type='InfoNCELoss')))
