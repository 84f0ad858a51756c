# Linear probe on a frozen CIFAR ResNet-18, for CIFAR-100.
_base_ = [
    '../../_base_/models/classifier_resnet18-cifar.py',
    '../../_base_/datasets/cifar100_bs512_linear.py',
    '../../_base_/schedules/linear_sgd_steplr_100e.py',
    '../../_base_/classification_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=5.0))
auto_scale_lr = dict(base_batch_size=512)

# Nothing of the backbone moves: no weight, no BN statistic.
model = dict(
    backbone=dict(frozen_stages=4, norm_eval=True),
    head=dict(num_classes=100),
)
