# Mask R-CNN with ResNet-50-FPN on Cityscapes, mmdet's 8 times 8 epochs.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/cityscapes_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]

model = dict(
    roi_head=dict(bbox_head=dict(num_classes=8), mask_head=dict(num_classes=8))
)

# One image on each of 8 GPUs.
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_epochs=8)  # the data set repeats the images 8 times
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500
    ),
    dict(
        type='MultiStepLR',
        by_epoch=True,
        begin=0,
        end=8,
        milestones=[7],
        gamma=0.1,
    ),
]
