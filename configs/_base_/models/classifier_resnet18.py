# ResNet-18 with a linear classifier on a pre-trained backbone.
_base_ = 'classifier_resnet50.py'

model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
