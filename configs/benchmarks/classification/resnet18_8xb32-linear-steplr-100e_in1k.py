# Linear probe on a frozen ResNet-18, by the protocol of the ResNet-50.
_base_ = [
    '../../_base_/models/classifier_resnet18.py',
    '../../_base_/datasets/imagenet_bs32_linear.py',
    '../../_base_/schedules/linear_sgd_steplr_100e.py',
    '../../_base_/classification_runtime.py',
]

# Nothing of the backbone moves: no weight, no BN statistic.
model = dict(backbone=dict(frozen_stages=4, norm_eval=True))
