# 10 % of the labels: 60 images of each class.
_base_ = 'unimoco_resnet18_fmnist.py'

train_dataloader = dict(dataset=dict(label_ratio=0.1))
