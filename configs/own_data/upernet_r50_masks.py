# Semantic segmentation of your own images, with a folder of masks (PNG with
# the class of each pixel, 255 ignored; a mask is called as its image): copy
# this file and change the four lines.
_base_ = [
    '../benchmarks/mmsegmentation/_base_/transfer.py',
    'mmseg::upernet/upernet_r50_4xb4-20k_voc12aug-512x512.py',
]

# Change these; --cfg-options does not reach them.
data_root = 'data/mine/'
classes = ('background', 'cat', 'dog')  # of pixel values 0, 1, 2
train = dict(img_path='images/train', seg_map_path='masks/train')
val = dict(img_path='images/val', seg_map_path='masks/val')

model = dict(
    pretrained=None,
    backbone={{_base_.resnet50}},
    decode_head=dict(num_classes=len(classes)),
    auxiliary_head=dict(num_classes=len(classes)),
)

__own = dict(
    _delete_=True,
    type='mmpretrain.MaskFolders',
    data_root=data_root,
    metainfo=dict(classes=classes),
)
train_dataloader = dict(
    dataset=dict(
        **__own, data_prefix=train, pipeline={{_base_.train_pipeline}}
    )
)
val_dataloader = dict(
    dataset=dict(**__own, data_prefix=val, pipeline={{_base_.test_pipeline}})
)
test_dataloader = val_dataloader
auto_scale_lr = dict(enable=False, base_batch_size=16)  # 4 GPUs x 4 images
