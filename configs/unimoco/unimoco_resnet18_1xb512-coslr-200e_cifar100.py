# CIFAR-100, all labels, one GPU. Not published.
_base_ = [
    '../_base_/models/unimoco_resnet18-cifar.py',
    '../_base_/datasets/cifar100_bs512_unimoco.py',
    '../_base_/schedules/cifar_sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=100))
