from .features import (
    count_not_finite,
    evaluating,
    extract_batch,
    labels_of,
    not_finite_text,
    pool,
)
from .knn import check_k, knn_scores, merge_topk, topk_neighbours, vote
from .sharded_knn import sharded_knn_scores

__all__ = [
    'check_k',
    'count_not_finite',
    'evaluating',
    'extract_batch',
    'knn_scores',
    'labels_of',
    'merge_topk',
    'not_finite_text',
    'pool',
    'sharded_knn_scores',
    'topk_neighbours',
    'vote',
]
