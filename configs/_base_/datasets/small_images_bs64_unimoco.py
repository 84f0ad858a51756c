# Small images of your own, 64 in a step, from train/ and val/ with a folder
# for each class: two crops cut on the CPU, the rest of the augmentation on the
# batch (no blur: the images are small), and kNN on the images of val/.
#
# `export OWN_IMAGES=...` names the folder with train/ and val/, and
# `export OWN_IMAGES_SIZE=...` the size of the images in pixels.
_base_ = 'small_images_val.py'

__size = int('{{$OWN_IMAGES_SIZE:32}}')

# Files are read as BGR, gray ones in three channels; all colour operations and
# the network see RGB, so mean and std are in the order RGB.
data_preprocessor = dict(
    type='TwoViewAugment',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    blur_prob=0.0,
)

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    drop_last=True,
    persistent_workers=True,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='collate_views'),
    dataset=dict(
        type='PartialLabels',
        label_ratio=1.0,  # in [0, 1]; class-balanced and nested
        seed=0,  # which images keep their label
        dataset=dict(
            type='CustomDataset',
            data_prefix='{{$OWN_IMAGES:data/mine}}/train',
            pipeline=[
                dict(
                    type='LoadTwoCrops',
                    scale=__size,
                    crop_ratio_range=(0.3, 1.0),
                    antialias=False,
                ),
                dict(type='PackInputs'),
            ],
        ),
    ),
)


val_cfg = dict(
    type='KNNValLoop',
    # The neighbours: every training image, with its label.
    bank_dataloader=dict(
        _base_.val_dataloader,
        dataset=dict(
            _base_.val_dataloader.dataset,
            data_prefix='{{$OWN_IMAGES:data/mine}}/train',
        ),
    ),
    k=(10,),  # number of neighbours
    temperature=0.07,  # a neighbour's vote weighs exp(cosine / temperature)
)
test_cfg = dict(val_cfg, type='KNNTestLoop')
val_evaluator = dict(type='Accuracy', topk=(1,), prefix='knn')
test_evaluator = val_evaluator
