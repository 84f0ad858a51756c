# kNN with the class token of the ViT-S/16 of any checkpoint.
_base_ = [
    '../../_base_/models/classifier_vit-small-p16.py',
    '../../_base_/datasets/imagenet_bs256_knn.py',
    '../../_base_/classification_runtime.py',
]

# The backbone is all that kNN needs, and tools/test.py loads it.
model = dict(backbone=dict(init_cfg=None), neck=None, head=None)
