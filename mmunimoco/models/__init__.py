"""UniMoCo with its head, losses and data preprocessor."""

from .losses import ContrastiveLoss, InfoNCELoss, SupConLoss, UniConLoss
from .momentum_encoder import MomentumEncoder
from .split_batch_norm import SplitBatchNorm
from .two_view_augment import TwoViewAugment
from .unimoco import UniMoCo
from .unimoco_head import UniMoCoHead

__all__ = [
    'ContrastiveLoss',
    'InfoNCELoss',
    'MomentumEncoder',
    'SplitBatchNorm',
    'SupConLoss',
    'TwoViewAugment',
    'UniConLoss',
    'UniMoCo',
    'UniMoCoHead',
]
