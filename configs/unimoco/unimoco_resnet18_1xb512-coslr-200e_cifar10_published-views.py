# CIFAR-10 with views made image by image on the CPU, float32, nothing
# compiled. For exact comparisons; slower.
_base_ = [
    '../_base_/models/unimoco_resnet18-cifar.py',
    '../_base_/datasets/cifar10_bs512_published-views.py',
    '../_base_/schedules/cifar_sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(dtype='float32')
