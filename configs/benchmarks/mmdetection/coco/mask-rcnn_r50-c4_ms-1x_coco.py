# Mask R-CNN with ResNet-50-C4 on COCO, 12 epochs.
_base_ = [
    '../_base_/models/mask-rcnn_r50-c4.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
