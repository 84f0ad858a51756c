# Small images of your own for a classifier, trained with random crops and
# flips; OWN_IMAGES and OWN_IMAGES_SIZE as in small_images_bs64_unimoco.py.
_base_ = 'small_images_val.py'

__size = int('{{$OWN_IMAGES_SIZE:32}}')

data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,  # files are read as BGR
)

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    # Trains on the labeled images; label_ratio as in pre-training selects the
    # same.
    dataset=dict(
        type='LabeledSubset',
        dataset=dict(
            type='PartialLabels',
            label_ratio=1.0,
            seed=0,
            dataset=dict(
                type='CustomDataset',
                data_prefix='{{$OWN_IMAGES:data/mine}}/train',
                pipeline=[
                    dict(type='CheckedLoadImageFromFile'),
                    dict(
                        type='RandomResizedCrop',
                        scale=__size,
                        crop_ratio_range=(0.3, 1.0),
                    ),
                    dict(type='RandomFlip', prob=0.5),
                    dict(type='PackInputs'),
                ],
            ),
        ),
    ),
)

val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
