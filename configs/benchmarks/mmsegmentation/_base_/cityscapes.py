# Cityscapes, 19 classes.
_base_ = 'transfer.py'

# ------------------------- usually changed -------------------------
# Folder with leftImg8bit/ and gtFine/; also: export CITYSCAPES_ROOT=...
cityscapes_root = '{{$CITYSCAPES_ROOT:data/cityscapes/}}'
# -------------------------------------------------------------------

images = dict(dataset=dict(data_root=cityscapes_root))

auto_scale_lr = dict(enable=False, base_batch_size=8)  # 4 GPUs x 2 images
