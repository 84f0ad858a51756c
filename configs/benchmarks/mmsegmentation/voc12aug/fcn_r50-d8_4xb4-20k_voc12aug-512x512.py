# FCN on a dilated ResNet-50, VOC 2012 with SBD, 20 000 steps.
_base_ = [
    '../_base_/voc12aug.py',
    'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py',
]

model = dict(pretrained=None, backbone={{_base_.resnet50}})
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(part, data_root=_base_.val_images.dataset.data_root)
            for part in _base_.train_dataloader.dataset.datasets
        ]
    )
)
val_dataloader = {{_base_.val_images}}
test_dataloader = {{_base_.val_images}}
