# UniMoCo, ResNet-50, 800 epochs of ImageNet with all labels.
_base_ = 'unimoco_resnet50_8xb32-coslr-200e_in1k.py'

train_cfg = dict(max_epochs=800)
