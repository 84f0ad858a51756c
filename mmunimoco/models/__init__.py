"""UniMoCo with its head, losses and data preprocessor."""

from .info_nce_loss import InfoNCELoss
from .supcon_loss import SupConLoss
from .two_view_augment import TwoViewAugment
from .unicon_loss import UniConLoss
from .unimoco import UniMoCo
from .unimoco_head import UniMoCoHead

__all__ = [
    'InfoNCELoss',
    'SupConLoss',
    'TwoViewAugment',
    'UniConLoss',
    'UniMoCo',
    'UniMoCoHead',
]
