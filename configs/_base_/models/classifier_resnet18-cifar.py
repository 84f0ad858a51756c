# A ResNet-18 with the CIFAR stem and a linear classifier, the backbone from a
# checkpoint. Plain BN: outside training SplitBatchNorm is the same.
_base_ = 'classifier_resnet18.py'

model = dict(
    backbone=dict(type='ResNet_CIFAR'),
    head=dict(num_classes=10),
)
