# UniMoCo, ViT-S/16 of MoCo v3, 300 epochs of ImageNet with all labels.
_base_ = [
    '../_base_/models/unimoco_vit-small-p16.py',
    '../_base_/datasets/imagenet_bs32_unimoco.py',
    '../_base_/schedules/imagenet_adamw_coslr_300e.py',
    '../_base_/fast_runtime.py',
]

train_dataloader = dict(batch_size=128)
