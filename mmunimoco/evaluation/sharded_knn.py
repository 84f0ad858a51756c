"""kNN with the bank spread over the processes."""

from collections.abc import Sequence

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor

from .knn import knn_scores, merge_topk, topk_neighbours, vote


def sharded_knn_scores(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    k: Sequence[int],
    temperature: float = 0.07,
    query_chunk: int = 4096,
    bank_chunk: int = 65536,
) -> dict[int, Tensor]:
    """Class scores of this process' queries against the bank of all.

    The queries are gathered, not the bank: every process finds the best
    neighbours of all queries in its own share of the bank, and the
    candidates of all shares are merged. A process never holds more than its
    share of the bank. All processes must call this together.

    Args:
        queries (Tensor): (n, D) float, L2-normalised rows of this process;
            n may differ between processes.
        bank (Tensor): (m, D) floating point, this process' share, perhaps
            empty.
        bank_labels (Tensor): (m,) int64 in [0, num_classes).
        num_classes (int): Number of classes C.
        k (Sequence[int]): Numbers of neighbours, at most the size of the
            whole bank.
        temperature (float): Temperature of the votes. Defaults to 0.07.
        query_chunk (int): Queries compared at a time. Defaults to 4096.
        bank_chunk (int): Bank entries compared at a time. Defaults to 65536.

    Returns:
        dict[int, Tensor]: For each k the (n, C) scores of this process'
        queries, rows summing to 1.
    """
    chunks = dict(query_chunk=query_chunk, bank_chunk=bank_chunk)
    if get_world_size() == 1:
        return knn_scores(
            queries, bank, bank_labels, num_classes, k, temperature, **chunks
        )
    blocks = all_gather(_pad(queries))
    found = topk_neighbours(torch.cat(blocks), bank, max(k), **chunks)
    similarities, labels = _merge(*found, bank_labels, len(blocks[0]))
    similarities, labels = (
        similarities[: len(queries)],
        labels[: len(queries)],
    )
    return {
        n: vote(similarities[:, :n], labels[:, :n], num_classes, temperature)
        for n in k
    }


def _pad(rows: Tensor) -> Tensor:
    """Fill up with zero rows to the longest of all processes."""
    longest = torch.tensor(len(rows), device=rows.device)
    all_reduce(longest, 'max')
    padded = rows.new_zeros((int(longest), rows.shape[1]))
    padded[: len(rows)] = rows
    return padded


def _merge(
    similarities: Tensor, rows: Tensor, bank_labels: Tensor, block: int
) -> tuple[Tensor, Tensor]:
    """Best neighbours of this process' block among all shares.

    Args:
        similarities (Tensor): (W * block, k), of all queries to this share.
        rows (Tensor): (W * block, k), rows of this share or -1.
        bank_labels (Tensor): (m,) labels of this share.
        block (int): Queries of each of the W processes, padding included.

    Returns:
        tuple[Tensor, Tensor]: (block, k) similarities and int64 labels.
    """
    none = bank_labels.new_full((1,), -1)
    # Row -1 ("no neighbour") picks the appended label -1.
    labels = torch.cat([bank_labels, none]).to(rows.device)[rows]
    k = similarities.shape[1]
    mine = None
    for rank in range(get_world_size()):
        window = slice(rank * block, (rank + 1) * block)
        candidates = torch.cat(all_gather(similarities[window]), dim=1)
        theirs = torch.cat(all_gather(labels[window]), dim=1)
        if rank == get_rank():
            mine = merge_topk(candidates, theirs, k)
    return mine
