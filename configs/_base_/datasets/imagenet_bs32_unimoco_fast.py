# The views of imagenet_bs32_unimoco.py, made where it is fast: the CPU decodes
# and crops, the rest runs on the batch, on the device of the model.
_base_ = 'imagenet_bs32_unimoco.py'

data_preprocessor = dict(type='TwoViewAugment')  # published is its default

view_pipeline = None  # LoadTwoCrops and TwoViewAugment make the views
train_pipeline = [
    dict(
        type='LoadTwoCrops',
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        antialias=False,  # True: Pillow's values, a fifth more time
    ),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    collate_fn=dict(type='collate_views'),
    dataset=dict(dataset=dict(pipeline=train_pipeline)),
)
