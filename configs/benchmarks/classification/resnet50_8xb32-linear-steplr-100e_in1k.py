# Linear probe on a frozen ResNet-50, as published for MoCo and UniMoCo:
# --cfg-options model.backbone.init_cfg.checkpoint=PATH
_base_ = [
    '../../_base_/models/classifier_resnet50.py',
    '../../_base_/datasets/imagenet_bs32_linear.py',
    '../../_base_/schedules/linear_sgd_steplr_100e.py',
    '../../_base_/classification_runtime.py',
]

# Nothing of the backbone moves: no weight, no BN statistic.
model = dict(backbone=dict(frozen_stages=4, norm_eval=True))
