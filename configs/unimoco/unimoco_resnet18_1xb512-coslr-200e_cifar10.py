# UniMoCo, CIFAR ResNet-18, 200 epochs of CIFAR-10 on one GPU, all labels.
_base_ = [
    '../_base_/models/unimoco_resnet18-cifar.py',
    '../_base_/datasets/cifar10_bs512_unimoco.py',
    '../_base_/schedules/cifar_sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(runtime_info=dict(type='DelayedRuntimeInfoHook'))
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='StepOptionsHook',
        channels_last=True,
        compile='gpu',
        images_on_device=True,
    ),
]
