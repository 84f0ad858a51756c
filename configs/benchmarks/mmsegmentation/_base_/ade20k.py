# ADE20K, 150 classes.
_base_ = 'transfer.py'

# ------------------------- usually changed -------------------------
# Folder with images/ and annotations/; also: export ADE20K_ROOT=...
ade20k_root = '{{$ADE20K_ROOT:data/ade/ADEChallengeData2016}}'
# -------------------------------------------------------------------

images = dict(dataset=dict(data_root=ade20k_root))

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 4 GPUs x 4 images
