# No labels: equal to MoCo v2.
_base_ = 'unimoco_resnet50_8xb32-coslr-800e_in1k_fast.py'

train_dataloader = dict(dataset=dict(label_ratio=0.0))
