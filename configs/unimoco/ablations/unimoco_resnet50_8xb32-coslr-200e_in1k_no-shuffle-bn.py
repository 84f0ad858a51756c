# Keys are not shuffled between the GPUs.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(shuffle_bn=False)
