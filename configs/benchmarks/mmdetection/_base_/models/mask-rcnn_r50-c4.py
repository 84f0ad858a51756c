# Mask R-CNN with ResNet-50-C4 under the protocol of MoCo: every layer is
# trained, SyncBN everywhere, one more of it after res5, normalisation and
# stride as in pre-training.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py'

import os

# ------------------------- usually changed -------------------------
# Set by tools/benchmarks/mmdetection/dist_train.sh; 'none': random weights.
checkpoint = os.environ.get('PRETRAINED', '')
# -------------------------------------------------------------------

norm_cfg = dict(type='SyncBN', requires_grad=True)
pretrained = dict(
    type='mmpretrain.Pretrained', checkpoint=checkpoint, prefix='backbone.'
)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        init_cfg=dict(_delete_=True, **pretrained),
    ),
    roi_head=dict(
        shared_head=dict(
            type='ResLayerExtraNorm',
            norm_cfg=norm_cfg,
            norm_eval=False,
            style='pytorch',
            # The additional norm is new; layer4 is in the checkpoint.
            init_cfg=dict(allow_missing=('norm.',), **pretrained),
        ),
    ),
    # As in detectron2, anchors that leave the image are trained too.
    train_cfg=dict(rpn=dict(allowed_border=-1)),
)

# Names of this file alone; the resolved config keeps only what counts.
del os, checkpoint, pretrained
