"""Small helpers for collectives that move whole rows of any dtype."""

from math import prod

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from torch import Tensor


def collective_device(device: torch.device) -> torch.device:
    """Device on which a collective can take tensors that live on ``device``.

    gloo exchanges CPU tensors only (it has no all_to_all for CUDA), nccl
    CUDA tensors only.
    """
    backends = _backends()
    if backends.get(device.type, 'gloo') != 'gloo':
        return device
    if 'cpu' in backends:
        return torch.device('cpu')
    return torch.device(next(iter(backends)))


def control_device() -> torch.device:
    """Device for messages that the host reads: the CPU where possible.

    With ``backend='cpu:gloo,cuda:nccl'`` reading such a message does not
    wait for the work queued on the GPU; with plain nccl it has to.
    """
    return collective_device(torch.device('cpu'))


def _backends() -> dict[str, str]:
    """Backend of the default group for each device type."""
    config = dist.get_backend_config()
    return dict(item.split(':') for item in config.split(','))


def as_bytes(x: Tensor) -> Tensor:
    """View the rows of a tensor as bytes, so that any dtype can travel.

    Args:
        x (Tensor): (n, ...) of any dtype.

    Returns:
        Tensor: (n, bytes a row) uint8; a view where ``x`` is contiguous.
    """
    rows = x.detach().reshape(x.shape[0], prod(x.shape[1:]))
    # A width of 1 is contiguous with any stride, but not viewable as bytes.
    if not rows.is_contiguous() or rows.stride(-1) != 1:
        rows = rows.clone(memory_format=torch.contiguous_format)
    return rows.view(torch.uint8)


def from_bytes(rows: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`as_bytes`.

    Args:
        rows (Tensor): (m, bytes a row) uint8.
        like (Tensor): (n, ...) tensor whose rows were sent.

    Returns:
        Tensor: (m, ...) of the dtype and device of ``like``.
    """
    # A copy, as the bytes of a slice need not be aligned for the dtype.
    rows = rows.clone(memory_format=torch.contiguous_format)
    rows = rows.view(like.dtype).view(rows.shape[0], *like.shape[1:])
    return rows.to(like.device)


def exchange_integers(values: list[int]) -> list[list[int]]:
    """Let every rank know a few integers of every other rank.

    Args:
        values (list[int]): The same number of int64 values on each rank.

    Returns:
        list[list[int]]: The values of each rank, in rank order.
    """
    if get_world_size() == 1:
        return [values]
    message = torch.tensor(values, dtype=torch.long, device=control_device())
    messages = [torch.empty_like(message) for _ in range(get_world_size())]
    dist.all_gather(messages, message)
    return torch.stack(messages).tolist()
