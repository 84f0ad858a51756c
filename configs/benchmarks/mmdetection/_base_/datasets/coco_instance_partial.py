# A part of COCO 2017's training images: one of the five folds of mmdet's
# tools/misc/split_coco.py. Trained by iterations.
_base_ = 'coco_instance.py'

train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
