# Detection and instance segmentation on your own data in COCO's format: copy
# this file and change the four lines.
_base_ = '../benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py'

# Change these; --cfg-options does not reach them.
data_root = 'data/mine/'
classes = ('cat', 'dog')  # names as in the annotation files
train = dict(ann_file='train.json', data_prefix=dict(img='images/'))
val = dict(ann_file='val.json', data_prefix=dict(img='images/'))

__own = dict(data_root=data_root, metainfo=dict(classes=classes))
model = dict(
    roi_head=dict(
        bbox_head=dict(num_classes=len(classes)),
        mask_head=dict(num_classes=len(classes)),
    )
)
# Images without objects are kept: they teach what is none.
__filter_cfg = dict(filter_empty_gt=False, min_size=32)
train_dataloader = dict(
    dataset=dict(filter_cfg=__filter_cfg, **__own, **train)
)
val_dataloader = dict(dataset=dict(**__own, **val))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root.rstrip("/")}/{val["ann_file"]}')
test_evaluator = val_evaluator
