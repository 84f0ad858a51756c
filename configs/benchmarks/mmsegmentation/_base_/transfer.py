# Shared by all transfers to semantic segmentation. List it (or a file that
# inherits it) first in `_base_`: it is executed before the bases below it are
# looked up, so they can be `mmseg::...`.
#
# Configs insert the parts defined here by `{{_base_.NAME}}`. To change one,
# change the key where it is inserted: `model.backbone.init_cfg.checkpoint`.
_base_ = []  # above the imports, see docs/configs.md

import os

from mmengine.config import utils

# mmengine looks up `mmseg::` by the distribution name mmsegmentation, which
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
