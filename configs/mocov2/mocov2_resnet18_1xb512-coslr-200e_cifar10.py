# MoCo v2 under the recipe of the UniMoCo config: no labels, InfoNCE.
_base_ = '../unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10.py'

model = dict(head=dict(loss=dict(_delete_=True, type='InfoNCELoss')))
train_dataloader = dict(dataset=dict(label_ratio=0.0))
