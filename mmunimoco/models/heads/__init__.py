from .sample_labels import collect_indices, collect_labels
from .unimoco_head import UniMoCoHead

__all__ = ['UniMoCoHead', 'collect_indices', 'collect_labels']
