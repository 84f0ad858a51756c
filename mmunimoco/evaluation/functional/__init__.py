from .features import evaluating, extract_batch, labels_of, pool
from .knn import check_k, knn_scores, merge_topk, topk_neighbours, vote
from .sharded_knn import sharded_knn_scores

__all__ = [
    'check_k',
    'evaluating',
    'extract_batch',
    'knn_scores',
    'labels_of',
    'merge_topk',
    'pool',
    'sharded_knn_scores',
    'topk_neighbours',
    'vote',
]
