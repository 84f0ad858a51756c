# No labels: equal to MoCo v2.
_base_ = 'unimoco_resnet18_fmnist.py'

train_dataloader = dict(dataset=dict(label_ratio=0.0))
