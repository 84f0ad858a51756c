from .batch_shuffle import ShufflePlan
from .gather import gather_tensors
from .momentum_encoder import MomentumEncoder
from .split_batch_norm import SplitBatchNorm

__all__ = [
    'MomentumEncoder',
    'ShufflePlan',
    'SplitBatchNorm',
    'gather_tensors',
]
