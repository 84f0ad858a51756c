# COCO 2017 of which a part of the training images is used, as chosen by
# mmdet's tools/misc/split_coco.py in one of its five folds.
_base_ = 'coco_instance.py'

train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
