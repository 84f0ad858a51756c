# VOC 2012 with the additional annotations of SBD, 21 classes.
_base_ = 'transfer.py'

# ------------------------- usually changed -------------------------
# Folder with JPEGImages/; also: export VOC12AUG_ROOT=...
voc12aug_root = '{{$VOC12AUG_ROOT:data/VOCdevkit/VOC2012}}'
# -------------------------------------------------------------------

val_images = dict(dataset=dict(data_root=voc12aug_root))

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 4 GPUs x 4 images
