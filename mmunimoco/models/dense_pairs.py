"""The whole matrix of logits: slow, short, and the form other losses take."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .labels import KeyBlock
from .pair_statistics import PairMonitor, dense_monitor


def dense_pairs(
    query: Tensor,
    key: Tensor,
    blocks: Sequence[KeyBlock],
    temperature: float,
    positive_temperature: float,
) -> tuple[Tensor, Tensor, PairMonitor]:
    """Compare all queries with all keys.

    Args:
        query (Tensor): Shape (N, C), float.
        key (Tensor): Each query's own key, shape (N, C).
        blocks (Sequence[KeyBlock]): All other keys.
        temperature (float): Divides the similarities of negatives.
        positive_temperature (float): Divides those of positives.

    Returns:
        tuple[Tensor, Tensor, PairMonitor]: Logits (N, 1 + M), the own key
        first, ``-inf`` where a key is left out; which are positives (N,
        1 + M), bool; and similarities for the log.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(device_type=query.device.type, enabled=False):
        query, key = query.to(dtype), key.to(dtype)
        similarity = [(query * key).sum(dim=1, keepdim=True)]
        positives = [torch.ones_like(similarity[0], dtype=torch.bool)]
        ignored = [~positives[0]]
        for block in blocks:
            # A copy: the queue is written to before the backward pass.
            keys = block.keys.to(dtype, copy=True)
            similarity.append(query @ keys.T)
            empty = torch.zeros_like(similarity[-1], dtype=torch.bool)
            positive, left_out = block.masks(slice(0, len(keys)))
            positives.append(empty if positive is None else positive)
            ignored.append(empty if left_out is None else left_out)
        similarity = torch.cat(similarity, dim=1)
        positives = torch.cat(positives, dim=1)
        ignored = torch.cat(ignored, dim=1)
        logits = torch.where(
            positives,
            similarity / positive_temperature,
            similarity / temperature,
        ).masked_fill(ignored, float('-inf'))
    return logits, positives, dense_monitor(similarity, positives, ignored)
