# Linear probe on the class token of a frozen ViT-S/16, as MoCo v3 does it.
_base_ = [
    '../../_base_/models/classifier_vit-small-p16.py',
    '../../_base_/datasets/imagenet_bs32_linear.py',
    '../../_base_/schedules/linear_sgd_coslr_90e.py',
    '../../_base_/classification_runtime.py',
]

train_dataloader = dict(batch_size=128)

# Nothing of the backbone moves: all 12 layers and the last norm.
model = dict(backbone=dict(frozen_stages=12, norm_eval=True))
