from . import heads, losses, preprocessors, selfsup, utils
from .heads import UniMoCoHead
from .losses import InfoNCELoss, SupConLoss, UniConLoss
from .preprocessors import TwoViewAugment
from .selfsup import UniMoCo

__all__ = [
    'InfoNCELoss',
    'SupConLoss',
    'TwoViewAugment',
    'UniConLoss',
    'UniMoCo',
    'UniMoCoHead',
    'heads',
    'losses',
    'preprocessors',
    'selfsup',
    'utils',
]
