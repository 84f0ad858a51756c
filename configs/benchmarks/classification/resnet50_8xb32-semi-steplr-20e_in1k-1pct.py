# Fine-tuning on 1 % of the labels of ImageNet:
# --cfg-options model.backbone.init_cfg.checkpoint=PATH
_base_ = [
    '../../_base_/models/classifier_resnet50.py',
    '../../_base_/datasets/imagenet_bs32_semi.py',
    '../../_base_/schedules/semi_sgd_steplr_20e.py',
    '../../_base_/classification_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=1))
