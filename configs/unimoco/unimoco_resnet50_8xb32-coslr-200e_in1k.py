# UniMoCo, ResNet-50, 200 epochs of ImageNet with all labels.
_base_ = [
    '../_base_/models/unimoco_resnet50.py',
    '../_base_/datasets/imagenet_bs32_unimoco.py',
    '../_base_/schedules/imagenet_sgd_coslr_200e.py',
    '../_base_/fast_runtime.py',
]
