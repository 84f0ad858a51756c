# DeepLabV3+ on a dilated ResNet-50, Cityscapes, 40 000 steps.
_base_ = [
    '../_base_/cityscapes.py',
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py',
]

model = dict(pretrained=None, backbone={{_base_.resnet50}})
train_dataloader = {{_base_.images}}
val_dataloader = {{_base_.images}}
test_dataloader = {{_base_.images}}
