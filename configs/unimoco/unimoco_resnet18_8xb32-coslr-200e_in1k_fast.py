# ResNet-18, all labels: under half of ResNet-50's multiplications. Not
# published.
_base_ = 'unimoco_resnet50_8xb32-coslr-200e_in1k_fast.py'

model = dict(
    backbone=dict(depth=18), neck=dict(in_channels=512, hid_channels=512)
)
