# ADE20K, 150 classes.
# `export ADE20K_ROOT=...` names the folder with images/ and annotations/.
_base_ = 'transfer.py'

images = dict(
    dataset=dict(data_root='{{$ADE20K_ROOT:data/ade/ADEChallengeData2016}}')
)

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 4 GPUs x 4 images
