# Mask R-CNN with ResNet-50-FPN on LVIS v1, 12 epochs.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/lvis_v1_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]

model = dict(
    roi_head=dict(
        bbox_head=dict(num_classes=1203), mask_head=dict(num_classes=1203)
    ),
    # LVIS counts up to 300 detections an image, of any score.
    test_cfg=dict(rcnn=dict(score_thr=0.0001, max_per_img=300)),
)
