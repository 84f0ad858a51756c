# 10 % of the labels.
_base_ = 'unimoco_vit-small-p16_8xb128-coslr-300e_in1k_fast.py'

train_dataloader = dict(dataset=dict(label_ratio=0.1))
