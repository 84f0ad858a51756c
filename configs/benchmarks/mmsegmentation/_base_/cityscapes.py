# Cityscapes, 19 classes.
# `export CITYSCAPES_ROOT=...` names the folder with leftImg8bit/ and gtFine/.
_base_ = 'transfer.py'

images = dict(dataset=dict(data_root='{{$CITYSCAPES_ROOT:data/cityscapes/}}'))

auto_scale_lr = dict(enable=False, base_batch_size=8)  # 4 GPUs x 2 images
