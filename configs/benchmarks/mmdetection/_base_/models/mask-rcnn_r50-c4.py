# Mask R-CNN with ResNet-50-C4 under the protocol of MoCo: every layer is
# trained, SyncBN everywhere, one more of it after res5, normalisation and
# stride as in pre-training.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py'

import os

__norm_cfg = dict(type='SyncBN', requires_grad=True)
# tools/benchmarks/mmdetection/dist_train.sh sets it; 'none' trains from
# random weights.
__pretrained = dict(
    type='mmpretrain.Pretrained',
    checkpoint=os.environ.get('PRETRAINED', ''),
    prefix='backbone.',
)

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
        init_cfg=dict(_delete_=True, **__pretrained),
    ),
    roi_head=dict(
        shared_head=dict(
            type='ResLayerExtraNorm',
            norm_cfg=__norm_cfg,
            norm_eval=False,
            style='pytorch',
            # The additional norm is new; layer4 is in the checkpoint.
            init_cfg=dict(allow_missing=('norm.',), **__pretrained),
        ),
    ),
    # As in detectron2, anchors that leave the image are trained too.
    train_cfg=dict(rpn=dict(allowed_border=-1)),
)
