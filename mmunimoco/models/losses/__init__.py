from .base import ContrastiveLoss
from .info_nce_loss import InfoNCELoss
from .monitor import PairMonitor
from .statistics import PairList, PairStatistics, dense_statistics
from .streamed import KeyBlock, Targets, streamed_statistics
from .supcon_loss import SupConLoss
from .unicon_loss import UniConLoss

__all__ = [
    'ContrastiveLoss',
    'InfoNCELoss',
    'KeyBlock',
    'PairList',
    'PairMonitor',
    'PairStatistics',
    'SupConLoss',
    'Targets',
    'UniConLoss',
    'dense_statistics',
    'streamed_statistics',
]
