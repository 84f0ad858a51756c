# Temperature 0.1 for positives, 0.2 as before for negatives.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(head=dict(positive_temperature=0.1))
