"""Weighted k-nearest-neighbour classification of L2-normalized features.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination" (CVPR 2018), section 3.4; also the kNN of DINO (Caron et al.,
ICCV 2021): the k bank entries most similar to a query vote for their class
with weight exp(cos / temperature).
"""

from collections.abc import Sequence

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor


def knn_neighbours(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int,
    query_chunk: int = 4096,
    bank_chunk: int = 65536,
) -> tuple[Tensor, Tensor]:
    """Similarities and labels of the k nearest bank entries of each query.

    With several processes each has its own queries and a share of the bank;
    all must call this together. The queries are gathered, not the bank: each
    process finds the neighbours of all queries in its share, and these
    candidates are merged.

    Args:
        queries (Tensor): (N, D) float, rows L2-normalized; N may differ
            between processes.
        bank (Tensor): (M, D) floating point, rows L2-normalized; see
            :func:`topk_neighbours` for device and dtype. A share may be
            empty.
        bank_labels (Tensor): (M,) int64, at least 0.
        k (int): Number of neighbours, at most the size of the whole bank.
        query_chunk (int): Queries compared at a time. Defaults to 4096.
        bank_chunk (int): Bank entries compared at a time. Defaults to 65536.

    Returns:
        tuple[Tensor, Tensor]: (N, k) similarities and (N, k) int64 labels on
        the queries' device, most similar first.

    Raises:
        ValueError: If k exceeds the bank, or an argument is malformed.
    """
    size = torch.tensor(len(bank), device=queries.device)
    all_reduce(size)
    check_k((k,), int(size))
    blocks = [queries] if get_world_size() == 1 else all_gather(_pad(queries))
    similarities, rows = topk_neighbours(
        torch.cat(blocks), bank, k, query_chunk, bank_chunk
    )
    # Row -1, no neighbour, selects the appended label -1.
    none = bank_labels.new_full((1,), -1)
    labels = torch.cat([bank_labels, none]).to(rows.device)[rows]
    if get_world_size() == 1:
        return similarities, labels
    similarities, labels = _merge_shares(similarities, labels, len(blocks[0]))
    return similarities[: len(queries)], labels[: len(queries)]


def _pad(rows: Tensor) -> Tensor:
    """Append zero rows up to the largest number of rows of any process."""
    longest = torch.tensor(len(rows), device=rows.device)
    all_reduce(longest, 'max')
    padded = rows.new_zeros((int(longest), rows.shape[1]))
    padded[: len(rows)] = rows
    return padded


def _merge_shares(
    similarities: Tensor, labels: Tensor, block: int
) -> tuple[Tensor, Tensor]:
    """Best neighbours of this process's queries in all shares of the bank.

    Args:
        similarities (Tensor): (W * block, k), of the queries of all W
            processes to this share.
        labels (Tensor): (W * block, k) int64 labels of these neighbours.
        block (int): Queries of each process, including padding.

    Returns:
        tuple[Tensor, Tensor]: (block, k) similarities and labels.
    """
    k = similarities.shape[1]
    own = None
    for rank in range(get_world_size()):
        window = slice(rank * block, (rank + 1) * block)
        candidates = torch.cat(all_gather(similarities[window]), dim=1)
        classes = torch.cat(all_gather(labels[window]), dim=1)
        if rank == get_rank():
            own = _keep_best(candidates, classes, k)
    return own


def topk_neighbours(
    queries: Tensor,
    bank: Tensor,
    k: int,
    query_chunk: int = 4096,
    bank_chunk: int = 65536,
) -> tuple[Tensor, Tensor]:
    """The k bank entries with the largest dot product with each query.

    The bank is processed in chunks with a running top-k, so nothing larger
    than (query_chunk, bank_chunk) is allocated. The bank may be on another
    device and in another floating dtype than the queries (such as half
    precision on the CPU); each chunk is converted to those of the queries.

    Args:
        queries (Tensor): (N, D) float, on the device that computes.
        bank (Tensor): (M, D) floating point.
        k (int): Neighbours to return, at least 1.
        query_chunk (int): Queries compared at a time. Defaults to 4096.
        bank_chunk (int): Bank entries compared at a time. Defaults to 65536.

    Returns:
        tuple[Tensor, Tensor]: (N, k) similarities in the dtype of the queries
        and (N, k) int64 bank rows, both on the queries' device, most similar
        first. If the bank has fewer than k entries, the rest has similarity
        -inf and row -1.

    Raises:
        ValueError: If k or a chunk is not positive, or the feature sizes of
            queries and bank differ.
    """
    sizes = dict(k=k, query_chunk=query_chunk, bank_chunk=bank_chunk)
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f'{name} must be at least 1, got {value}.')
    if not (queries.ndim == bank.ndim == 2) or (
        queries.shape[1] != bank.shape[1]
    ):
        raise ValueError(
            'queries and bank must be (N, D) and (M, D) with the same D, got '
            f'{tuple(queries.shape)} and {tuple(bank.shape)}.'
        )
    similarities = queries.new_full((len(queries), k), float('-inf'))
    rows = torch.full_like(similarities, -1, dtype=torch.int64)
    for start in range(0, len(bank), bank_chunk):
        part = bank[start : start + bank_chunk].to(queries)
        for first in range(0, len(queries), query_chunk):
            window = slice(first, first + query_chunk)
            products = queries[window] @ part.T
            best, index = products.topk(min(k, len(part)), dim=1)
            similarities[window], rows[window] = _keep_best(
                torch.cat([similarities[window], best], dim=1),
                torch.cat([rows[window], index + start], dim=1),
                k,
            )
    return similarities, rows


def _keep_best(
    similarities: Tensor, payload: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Keep the k most similar of (N, L) candidates, most similar first."""
    best, order = similarities.topk(k, dim=1)
    return best, payload.gather(1, order)


def vote(
    similarities: Tensor,
    labels: Tensor,
    num_classes: int,
    temperature: float,
) -> Tensor:
    """Sum the votes of the neighbours for each class.

    The weight of a neighbour is exp(cos / temperature), divided by the sum of
    the weights of all neighbours of the query. This softmax keeps the
    published ranking of the classes and does not overflow.

    Args:
        similarities (Tensor): (N, k) float cosine similarities, -inf for no
            neighbour.
        labels (Tensor): (N, k) int64 in [0, num_classes); ignored where the
            similarity is -inf.
        num_classes (int): Number of classes C.
        temperature (float): Temperature, greater than 0.

    Returns:
        Tensor: (N, C) float scores; each row sums to 1.

    Raises:
        ValueError: If the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f'temperature must be positive, got {temperature}.')
    weights = torch.softmax(similarities / temperature, dim=1)
    scores = similarities.new_zeros((len(similarities), num_classes))
    return scores.scatter_add_(1, labels.clamp(min=0), weights)


def check_k(k: Sequence[int], bank_size: int, field: str = 'k') -> None:
    """Raise a ValueError unless all k are between 1 and the bank's size.

    Args:
        k (Sequence[int]): Numbers of neighbours.
        bank_size (int): Number of bank entries.
        field (str): Name of the config field for the message. Defaults to
            'k'.
    """
    if not k or min(k) < 1:
        raise ValueError(
            f'{field} must contain at least one number of neighbours, all at '
            f'least 1, got {tuple(k)}.'
        )
    if max(k) > bank_size:
        raise ValueError(
            f'{field}={tuple(k)} asks for {max(k)} neighbours but the bank '
            f'has only {bank_size} labeled samples; lower {field} or use a '
            'larger bank.'
        )
