from . import heads, losses, selfsup, utils
from .heads import UniMoCoHead
from .losses import InfoNCELoss, SupConLoss, UniConLoss
from .selfsup import UniMoCo

__all__ = [
    'InfoNCELoss',
    'SupConLoss',
    'UniConLoss',
    'UniMoCo',
    'UniMoCoHead',
    'heads',
    'losses',
    'selfsup',
    'utils',
]
