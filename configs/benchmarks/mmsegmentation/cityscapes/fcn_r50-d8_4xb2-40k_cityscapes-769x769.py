# FCN on a dilated ResNet-50, Cityscapes, 40 000 steps.
_base_ = [
    '../_base_/cityscapes.py',
    'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py',
]

model = dict(pretrained=None, backbone={{_base_.resnet50}})
train_dataloader = {{_base_.images}}
val_dataloader = {{_base_.images}}
test_dataloader = {{_base_.images}}
