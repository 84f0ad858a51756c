# ViT-S/16, all labels, trained as MoCo v3 trains it. Not published.
_base_ = [
    '../_base_/models/unimoco_vit-small-p16.py',
    '../_base_/datasets/imagenet_bs32_unimoco_fast.py',
    '../_base_/schedules/imagenet_adamw_coslr_300e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=128)
