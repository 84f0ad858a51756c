# Key encoder from m = 0.999 to 1 along a cosine.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(end_momentum=0.0)
