from .knn import knn_scores, merge_topk, topk_neighbours, vote

__all__ = ['knn_scores', 'merge_topk', 'topk_neighbours', 'vote']
