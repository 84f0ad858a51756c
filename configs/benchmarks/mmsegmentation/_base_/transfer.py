# What every transfer to semantic segmentation shares. The first of the
# `_base_` files: mmengine finds `mmseg::` once mmunimoco is imported, with any
# release of mmsegmentation.
_base_ = []  # before any import, see docs/configs.md

import os
from importlib import import_module

import_module('mmunimoco')
custom_imports = dict(imports=['mmunimoco'], allow_failed_imports=False)

# ------------------------- usually changed -------------------------
# What was pre-trained; also: export PRETRAINED=... The launch scripts set it.
# 'none' trains from random weights.
checkpoint = os.environ.get('PRETRAINED', '')
# -------------------------------------------------------------------

pretrained_backbone = dict(
    type='mmpretrain.Pretrained', checkpoint=checkpoint, prefix='backbone.'
)
# The plain ResNet-50 that was pre-trained, not the hosts' with a deep stem.
resnet50 = dict(type='ResNet', init_cfg=pretrained_backbone)

custom_hooks = [
    # Checks checkpoints, masks and normalisation.
    dict(type='mmpretrain.PreflightHook'),
]
