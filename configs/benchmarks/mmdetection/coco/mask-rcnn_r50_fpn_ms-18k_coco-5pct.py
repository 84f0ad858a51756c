# Mask R-CNN with ResNet-50-FPN on 5 % of COCO's images, 18k iterations.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_partial.py',
    '../_base_/schedules/schedule_18k.py',
    '../_base_/iter_runtime.py',
]

# `export COCO_FOLD=...`: one of the five folds of mmdet's
# tools/misc/split_coco.py.
train_dataloader = dict(
    dataset=dict(
        ann_file='semi_anns/instances_train2017.{{$COCO_FOLD:1}}@5.json'
    )
)
