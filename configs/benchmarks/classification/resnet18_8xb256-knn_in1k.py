# kNN with the ResNet-18 of any checkpoint.
_base_ = [
    '../../_base_/models/classifier_resnet18.py',
    '../../_base_/datasets/imagenet_bs256_knn.py',
    '../../_base_/classification_runtime.py',
]

# The backbone is all that kNN needs, and tools/test.py loads it.
model = dict(backbone=dict(init_cfg=None), neck=None, head=None)
