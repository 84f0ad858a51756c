# UPerNet on a ResNet-50, ADE20K, 80 000 steps.
_base_ = [
    '../_base_/ade20k.py',
    'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
]

model = dict(pretrained=None, backbone={{_base_.resnet50}})
train_dataloader = {{_base_.images}}
val_dataloader = {{_base_.images}}
test_dataloader = {{_base_.images}}
