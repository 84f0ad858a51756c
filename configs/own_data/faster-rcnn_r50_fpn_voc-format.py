# Detection on your own data in VOC's format (Annotations/*.xml and JPEGImages/
# with .jpg files): copy this file and change the four lines.
_base_ = '../benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py'

# Change these; --cfg-options does not reach them.
data_root = 'data/mine/'  # with JPEGImages/ and Annotations/
classes = ('cat', 'dog')  # names as in the XML files
train_list = 'ImageSets/Main/trainval.txt'
val_list = 'ImageSets/Main/test.txt'

model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(
        bbox_head=dict(num_classes=len(classes)),
        mask_roi_extractor=None,
        mask_head=None,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    *_base_.test_pipeline[:2],
    dict(type='LoadAnnotations', with_bbox=True),
    _base_.test_pipeline[3],
]
__own = dict(
    _delete_=True,
    # Not VOCDataset: where a path has VOC2007 in it, that prints the scores
    # under the names of VOC's own classes.
    type='XMLDataset',
    data_root=data_root,
    data_prefix=dict(sub_data_root=''),
    metainfo=dict(classes=classes),
)
train_dataloader = dict(
    dataset=dict(
        **__own,
        ann_file=train_list,
        # Images without objects are kept: they teach what is none.
        filter_cfg=dict(filter_empty_gt=False, min_size=32),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        **__own, ann_file=val_list, test_mode=True, pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader

# AP over ten IoU thresholds, AP50 and the rest, by VOC's area under the curve.
val_evaluator = dict(
    _delete_=True,
    type='VOCMetric',
    metric='mAP',
    eval_mode='area',
    iou_thrs=[i / 100 for i in range(50, 100, 5)],
)
test_evaluator = val_evaluator
