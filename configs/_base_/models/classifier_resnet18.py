# A ResNet-18 with a linear classifier, the backbone from a checkpoint.
_base_ = 'classifier_resnet50.py'

model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
