# VOC 2012 with the additional annotations of SBD, 21 classes.
# `export VOC12AUG_ROOT=...` names the folder with JPEGImages/.
_base_ = 'transfer.py'

# To evaluate on. Training joins two data sets; see the config.
val_images = dict(
    dataset=dict(data_root='{{$VOC12AUG_ROOT:data/VOCdevkit/VOC2012}}')
)

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 4 GPUs x 4 images
