# Mask R-CNN with ResNet-50-FPN under the protocol of MoCo: every layer is
# trained, SyncBN everywhere, FPN and heads included, normalisation as in
# pre-training.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

import os

__norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=__norm_cfg,
        norm_eval=False,
        style='pytorch',
        init_cfg=dict(
            _delete_=True,
            type='mmpretrain.Pretrained',
            # Set by tools/benchmarks/mmdetection/dist_train.sh; 'none' trains
            # from random weights.
            checkpoint=os.environ.get('PRETRAINED', ''),
            prefix='backbone.',
        ),
    ),
    neck=dict(norm_cfg=__norm_cfg),
    roi_head=dict(
        # Two fully connected layers would leave no place for a norm.
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=__norm_cfg),
        mask_head=dict(norm_cfg=__norm_cfg),
    ),
)
