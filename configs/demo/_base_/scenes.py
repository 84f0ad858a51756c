# Shared by detection and segmentation of the demo's scenes; the first of the
# `_base_` files, because of what it does for the second.
_base_ = []  # above the imports, see docs/configs.md

from mmengine.config import utils

# mmengine looks `mmseg::` up under the distribution name mmsegmentation, which
# onedl-mmsegmentation does not have.
utils.MODULE2PACKAGE['mmseg'] = 'mmseg'

custom_imports = dict(
    imports=['mmunimoco', 'mmunimoco.safe_checkpoints'],
    allow_failed_imports=False,
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20),
    # Without T_max and end: half a cosine over max_epochs, whatever it is.
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(base_batch_size=8)

custom_hooks = [
    # Checks checkpoints, class names, masks and normalisation.
    dict(type='mmpretrain.PreflightHook'),
]
randomness = dict(seed=0)
