"""Queues of MoCo, as the head of this project keeps them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .renaming import part_of


def to_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the queues of MoCo and UniMoCo into those of ``UniMoCoHead``.

    Args:
        state (Mapping[str, Tensor]): May have ``head.queue`` (C, K), a key a
            column, ``head.queue_ptr`` (1,) and ``head.label_queue`` (K,).

    Returns:
        dict[str, Tensor]: With ``head.queue`` (K, C), a key a row, and
        ``head.label_queue`` (K,) int64, all -1 if there was none.

    Raises:
        ValueError: If the queue is no matrix.
    """
    new = dict(state)
    queue = new.get('head.queue')
    if queue is None:
        return new
    if queue.ndim != 2:
        raise ValueError(f'queue is {tuple(queue.shape)}, not (C, K)')
    new['head.queue'] = queue.T.contiguous()
    unlabeled = torch.full((queue.shape[1],), -1)
    labels = new.get('head.label_queue', unlabeled)
    new['head.label_queue'] = labels.to(torch.int64)
    return new


def check_queues(state: Mapping[str, Tensor]) -> None:
    """Check that the queues fit each other and the neck.

    Args:
        state (Mapping[str, Tensor]): What :func:`to_head` returned.

    Raises:
        ValueError: If one is missing or has another size.
    """
    head = part_of(state, 'head.')
    queue, labels = head.get('queue'), head.get('label_queue')
    pointer = head.get('queue_ptr')
    if queue is None:
        if labels is not None or pointer is not None:
            raise ValueError('there is a queue_ptr or label_queue, no queue')
        return
    length, channels = queue.shape
    if labels.shape != (length,):
        raise ValueError(
            f'label_queue is {tuple(labels.shape)}, but the queue has '
            f'{length} keys'
        )
    if pointer is None or pointer.numel() != 1:
        raise ValueError('the queue has no queue_ptr of one number')
    if not 0 <= int(pointer) < length:
        raise ValueError(
            f'queue_ptr is {int(pointer)}, outside the {length} keys'
        )
    linear = [v for v in part_of(state, 'neck.').values() if v.ndim == 2]
    if linear and linear[-1].shape[0] != channels:
        raise ValueError(
            f'the queue holds keys of {channels} numbers (it is {channels} x '
            f'{length} in the file), but the projection head ends with '
            f'{linear[-1].shape[0]}'
        )
