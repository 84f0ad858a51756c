# Shared by all transfers to semantic segmentation; the first of the `_base_`
# files, because of what it does for the second.
_base_ = []  # above the imports, see docs/configs.md

import os

from mmengine.config import utils

# mmengine looks `mmseg::` up under the distribution name mmsegmentation, which
# onedl-mmsegmentation does not have.
utils.MODULE2PACKAGE['mmseg'] = 'mmseg'

custom_imports = dict(
    imports=['mmunimoco', 'mmunimoco.safe_checkpoints'],
    allow_failed_imports=False,
)

# `export PRETRAINED=...`, which the launch scripts do, names the checkpoint;
# 'none' trains from random weights.
pretrained_backbone = dict(
    type='mmpretrain.Pretrained',
    checkpoint=os.environ.get('PRETRAINED', ''),
    prefix='backbone.',
)
# The plain ResNet-50 of pre-training, not the host's with a deep stem.
resnet50 = dict(type='ResNet', init_cfg=pretrained_backbone)

custom_hooks = [
    # Checks checkpoints, masks and normalisation.
    dict(type='mmpretrain.PreflightHook'),
]
