# Key encoder with m = 0.9999, not 0.999.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(momentum=0.0001)
