# CIFAR-10, all labels, one GPU that holds all images and makes the views.
_base_ = [
    '../_base_/models/unimoco_resnet18-cifar.py',
    '../_base_/datasets/cifar10_bs512_unimoco_fast.py',
    '../_base_/schedules/cifar_sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StepOptionsHook', images_on_device=True),
]
