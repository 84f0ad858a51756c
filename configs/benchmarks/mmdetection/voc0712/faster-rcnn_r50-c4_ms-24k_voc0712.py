# Faster R-CNN with ResNet-50-C4 on VOC 2007 + 2012, 24k iterations.
_base_ = [
    '../_base_/models/faster-rcnn_r50-c4.py',
    '../_base_/datasets/voc0712.py',
    '../_base_/schedules/schedule_24k.py',
    '../_base_/iter_runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
