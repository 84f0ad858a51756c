# Instances of Cityscapes, the shorter side between 800 and 1024, measured by
# COCO's tools and by Cityscapes' own.
_base_ = 'mmdet::_base_/datasets/cityscapes_instance.py'

# ------------------------- usually changed -------------------------
# Folder with leftImg8bit/, gtFine/ and the annotations/ that mmdet's
# converter writes; or: export CITYSCAPES_ROOT=...
data_root = '{{$CITYSCAPES_ROOT:data/cityscapes/}}'
# -------------------------------------------------------------------

train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

val_evaluator = [
    dict(
        type='CocoMetric',
        ann_file=data_root.rstrip('/')
        + '/annotations/instancesonly_filtered_gtFine_val.json',
        metric=['bbox', 'segm'],
    ),
    dict(
        type='CityScapesMetric',
        seg_prefix=data_root.rstrip('/') + '/gtFine/val',
        outfile_prefix='./work_dirs/cityscapes_metric/instance',
    ),
]
test_evaluator = val_evaluator
