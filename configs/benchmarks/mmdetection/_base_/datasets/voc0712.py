# VOC 2007 and 2012 trainval, the shorter side between 480 and 800; tested on
# VOC 2007 test at ten IoU thresholds with its 11-point rule.
# `export VOC_ROOT=...` names the folder with VOC2007/ and VOC2012/.
_base_ = 'mmdet::_base_/datasets/voc0712.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # As in detectron2, difficult objects too; in mmdet they are background.
    dict(type='mmpretrain.TrainIgnoredObjects'),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(480, 801, 32)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    # After the resizing, which must not change the boxes tested against.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        # The two years name themselves, and would be taken for two tasks.
        ignore_keys=['dataset_type'],
        datasets=[
            dict(
                type='VOCDataset',
                data_root='{{$VOC_ROOT:data/VOCdevkit/}}',
                ann_file=f'{year}/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root=f'{year}/'),
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline=train_pipeline,
            )
            for year in ('VOC2007', 'VOC2012')
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root='{{$VOC_ROOT:data/VOCdevkit/}}', pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(iou_thrs=[i / 100 for i in range(50, 100, 5)])
test_evaluator = val_evaluator
