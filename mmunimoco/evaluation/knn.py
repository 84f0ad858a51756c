"""Weighted k-nearest-neighbour classification on L2-normalised features.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination" (CVPR 2018), section 3.4; also the kNN of DINO (Caron et al.,
ICCV 2021): a query's k most similar bank entries vote for their class with
weight exp(cos / temperature).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def topk_neighbours(
    queries: Tensor,
    bank: Tensor,
    k: int,
    query_chunk: int = 4096,
    bank_chunk: int = 65536,
) -> tuple[Tensor, Tensor]:
    """The k bank entries of largest dot product with each query.

    The bank passes chunk by chunk and a running top-k is kept, so that
    nothing larger than (query_chunk, bank_chunk) exists at a time. The bank
    may be stored on another device and in another floating type than the
    queries (half precision on the CPU, say); a chunk is converted when its
    turn comes and the products are taken in the type of the queries.

    Args:
        queries (Tensor): (N, D) float, on the device that computes.
        bank (Tensor): (M, D) floating point.
        k (int): Neighbours to return, at least 1.
        query_chunk (int): Queries compared at a time. Defaults to 4096.
        bank_chunk (int): Bank entries compared at a time. Defaults to 65536.

    Returns:
        tuple[Tensor, Tensor]: Similarities (N, k) in the type of the queries
        and bank rows (N, k) int64, both on the queries' device, most similar
        first. Where the bank has fewer than k entries the rest is filled
        with similarity -inf and row -1.

    Raises:
        ValueError: If k or a chunk is not positive, or the feature sizes of
            queries and bank differ.
    """
    for name, value in (
        ('k', k),
        ('query_chunk', query_chunk),
        ('bank_chunk', bank_chunk),
    ):
        if value < 1:
            raise ValueError(f'{name} must be at least 1, got {value}.')
    if (
        queries.ndim != 2
        or bank.ndim != 2
        or queries.shape[1] != bank.shape[1]
    ):
        raise ValueError(
            'queries and bank must be (N, D) and (M, D) of one D, got '
            f'{tuple(queries.shape)} and {tuple(bank.shape)}.'
        )
    size = len(queries)
    similarities = queries.new_full((size, k), float('-inf'))
    rows = torch.full((size, k), -1, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), bank_chunk):
        part = bank[start : start + bank_chunk].to(queries)
        for first in range(0, size, query_chunk):
            window = slice(first, first + query_chunk)
            products = queries[window] @ part.T
            best, index = products.topk(min(k, len(part)), dim=1)
            similarities[window], rows[window] = merge_topk(
                torch.cat([similarities[window], best], dim=1),
                torch.cat([rows[window], index + start], dim=1),
                k,
            )
    return similarities, rows


def merge_topk(
    similarities: Tensor, payload: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Keep the k candidates of largest similarity in each row.

    Args:
        similarities (Tensor): (N, L) float, L >= k.
        payload (Tensor): (N, L), what belongs to each candidate.
        k (int): Candidates to keep.

    Returns:
        tuple[Tensor, Tensor]: (N, k) similarities, largest first, and the
        (N, k) payload in the same order.
    """
    best, order = similarities.topk(k, dim=1)
    return best, payload.gather(1, order)


def vote(
    similarities: Tensor,
    labels: Tensor,
    num_classes: int,
    temperature: float,
) -> Tensor:
    """Let the neighbours vote for their class.

    Each neighbour's weight is exp(cos / temperature), divided by the sum of
    the weights of all neighbours of the query (a softmax: the ranking of the
    classes is the published one, no temperature overflows).

    Args:
        similarities (Tensor): (N, k) float cosine similarities; -inf for "no
            neighbour".
        labels (Tensor): (N, k) int64 in [0, num_classes); ignored where the
            similarity is -inf.
        num_classes (int): Number of classes C.
        temperature (float): Temperature, greater than 0.

    Returns:
        Tensor: (N, C) float scores. Rows sum to 1.

    Raises:
        ValueError: If the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f'temperature must be positive, got {temperature}.')
    weights = torch.softmax(similarities / temperature, dim=1)
    scores = similarities.new_zeros((len(similarities), num_classes))
    return scores.scatter_add_(1, labels.clamp(min=0), weights)


def knn_scores(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    k: Sequence[int] = (200,),
    temperature: float = 0.07,
    query_chunk: int = 4096,
    bank_chunk: int = 65536,
) -> dict[int, Tensor]:
    """Class scores of each query by weighted kNN, for several k at once.

    Args:
        queries (Tensor): (N, D) float, rows L2-normalised.
        bank (Tensor): (M, D) floating point, rows L2-normalised; see
            :func:`topk_neighbours` for device and type.
        bank_labels (Tensor): (M,) int64 in [0, num_classes).
        num_classes (int): Number of classes C.
        k (Sequence[int]): Numbers of neighbours, each at most M.
        temperature (float): Temperature of the votes. Defaults to 0.07.
        query_chunk (int): Queries compared at a time. Defaults to 4096.
        bank_chunk (int): Bank entries compared at a time. Defaults to 65536.

    Returns:
        dict[int, Tensor]: For each k the (N, C) scores of :func:`vote`.

    Raises:
        ValueError: If a k is larger than the bank, labels are out of range,
            or an argument is malformed.
    """
    check_k(k, len(bank))
    check_labels(bank_labels, num_classes)
    similarities, rows = topk_neighbours(
        queries, bank, max(k), query_chunk, bank_chunk
    )
    labels = bank_labels.to(rows.device)[rows]
    return {
        n: vote(similarities[:, :n], labels[:, :n], num_classes, temperature)
        for n in k
    }


def check_k(
    k: Sequence[int], bank_size: int, field: str | None = None
) -> None:
    """Raise a ValueError if a number of neighbours is impossible.

    Args:
        k (Sequence[int]): Numbers of neighbours.
        bank_size (int): Number of bank entries.
        field (str, optional): Name of the config field, for the message.
            Defaults to None, which says "k".
    """
    field = field or 'k'
    if not k or min(k) < 1:
        raise ValueError(
            f'{field} must name at least one number of neighbours, all of '
            f'them at least 1, got {tuple(k)}.'
        )
    if max(k) > bank_size:
        raise ValueError(
            f'{field}={tuple(k)} asks for {max(k)} neighbours but the bank '
            f'has only {bank_size} labeled samples; lower {field} or give a '
            'larger bank.'
        )


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise a ValueError unless all labels are in [0, num_classes).

    Args:
        labels (Tensor): (M,) integer labels.
        num_classes (int): Number of classes.
    """
    if len(labels) == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f'bank labels must be in [0, {num_classes}), found {low} to '
            f'{high}; check the classes of the bank data set.'
        )
