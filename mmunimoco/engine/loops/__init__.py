from .exact_loops import ExactEpochLoop, ExactIterLoop, ExactLoop
from .knn_loop import KNNTestLoop, KNNValLoop

__all__ = [
    'ExactEpochLoop',
    'ExactIterLoop',
    'ExactLoop',
    'KNNTestLoop',
    'KNNValLoop',
]
