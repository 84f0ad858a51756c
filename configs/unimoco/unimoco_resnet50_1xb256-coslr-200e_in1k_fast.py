# One GPU: the batch of eight, normalised in eight parts. Not published.
_base_ = 'unimoco_resnet50_8xb32-coslr-200e_in1k_fast.py'

model = dict(backbone=dict(norm_cfg=dict(type='SplitBatchNorm', num_splits=8)))
train_dataloader = dict(batch_size=256, num_workers=16)
