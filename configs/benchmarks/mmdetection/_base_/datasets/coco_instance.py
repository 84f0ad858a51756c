# COCO 2017 with boxes and masks, the shorter side between 640 and 800.
# `export COCO_ROOT=...` names the folder with train2017/, val2017/ and
# annotations/.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(640, 801, 32)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    dataset=dict(
        data_root='{{$COCO_ROOT:data/coco/}}', pipeline=train_pipeline
    )
)
val_dataloader = dict(dataset=dict(data_root='{{$COCO_ROOT:data/coco/}}'))
test_dataloader = val_dataloader

val_evaluator = dict(
    ann_file='{{$COCO_ROOT:data/coco}}/annotations/instances_val2017.json'
)
test_evaluator = val_evaluator
