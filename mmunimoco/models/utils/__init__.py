from .batch_shuffle import ShufflePlan
from .gather import gather_tensors
from .host_samples import keep_samples_on_host
from .momentum_encoder import MomentumEncoder
from .split_batch_norm import SplitBatchNorm

__all__ = [
    'MomentumEncoder',
    'ShufflePlan',
    'SplitBatchNorm',
    'gather_tensors',
    'keep_samples_on_host',
]
