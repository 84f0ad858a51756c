# The views of cifar10_bs512_unimoco.py, made on the device of the model, where
# all images are. Needs StepOptionsHook(images_on_device=True).
_base_ = 'cifar10_bs512_unimoco.py'

data_preprocessor = dict(
    type='TwoViewAugment',
    crop=dict(scale=32, crop_ratio_range=(0.2, 1.0)),
    blur_prob=0.0,
)

view_pipeline = None  # TwoViewAugment makes the views
train_pipeline = [dict(type='IndexAsImage'), dict(type='PackInputs')]

train_dataloader = dict(
    dataset=dict(dataset=dict(pipeline=train_pipeline)),
)
