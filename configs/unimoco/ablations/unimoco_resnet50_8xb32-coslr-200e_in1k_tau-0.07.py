# Temperature 0.07, not 0.2.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(head=dict(temperature=0.07))
