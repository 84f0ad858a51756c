# All labels, 800 epochs: the length of the published runs.
_base_ = 'unimoco_resnet50_8xb32-coslr-200e_in1k_fast.py'

train_cfg = dict(max_epochs=800)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=800, by_epoch=True, begin=0, end=800)
]
