# Instances of Cityscapes, the shorter side between 800 and 1024, measured by
# COCO's tools and by Cityscapes' own.
# `export CITYSCAPES_ROOT=...` names the folder with leftImg8bit/, gtFine/ and
# the annotations/ that mmdet's converter writes.
_base_ = 'mmdet::_base_/datasets/cityscapes_instance.py'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(data_root='{{$CITYSCAPES_ROOT:data/cityscapes/}}')
    )
)
val_dataloader = dict(
    dataset=dict(data_root='{{$CITYSCAPES_ROOT:data/cityscapes/}}')
)
test_dataloader = val_dataloader

val_evaluator = [
    dict(
        type='CocoMetric',
        ann_file='{{$CITYSCAPES_ROOT:data/cityscapes}}/annotations/instancesonly_filtered_gtFine_val.json',
        metric=['bbox', 'segm'],
    ),
    dict(
        type='CityScapesMetric',
        seg_prefix='{{$CITYSCAPES_ROOT:data/cityscapes}}/gtFine/val',
        outfile_prefix='./work_dirs/cityscapes_metric/instance',
    ),
]
test_evaluator = val_evaluator
