# kNN with the CIFAR ResNet-18 of any checkpoint, on CIFAR-100.
_base_ = [
    '../../_base_/models/classifier_resnet18-cifar.py',
    '../../_base_/datasets/cifar100_bs512_knn.py',
    '../../_base_/classification_runtime.py',
]

# The backbone is all that kNN needs, and tools/test.py loads it.
model = dict(backbone=dict(init_cfg=None), neck=None, head=None)
