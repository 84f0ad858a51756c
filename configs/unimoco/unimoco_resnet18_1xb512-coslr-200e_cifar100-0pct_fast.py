# No labels: equal to MoCo v2.
_base_ = 'unimoco_resnet18_1xb512-coslr-200e_cifar100_fast.py'

train_dataloader = dict(dataset=dict(label_ratio=0.0))
