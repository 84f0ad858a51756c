"""Small helpers for collectives that move whole rows of any dtype."""

from functools import lru_cache
from math import prod

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

_LOST = (
    'rank {} cannot go on without another process, which has ended or does '
    'not answer: the cause is in the output of that one'
)


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


def upload(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; from the CPU without making the host wait.

    Args:
        x (Tensor): Any shape and dtype. On the CPU it must not be written to
            any more.
        device (torch.device): Where it is wanted.
    """
    if x.device.type != 'cpu' or device.type != 'cuda':
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def _control_group() -> tuple[dist.ProcessGroup | None, torch.device]:
    """Group and device for messages that the host reads.

    A message by nccl would be read after all work queued on the GPU. Where
    the default group has nothing else, a gloo group beside it, made at the
    first call, leaves the GPU alone.
    """
    if _backends().get('cpu') == 'gloo':
        return None, torch.device('cpu')
    if not dist.is_gloo_available():
        return None, collective_device(torch.device('cpu'))
    return _gloo_group(dist.group.WORLD), torch.device('cpu')


@lru_cache(maxsize=1)
def _gloo_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """One gloo group of all ranks for each default group there has been."""
    return new_control_group()


def new_control_group() -> dist.ProcessGroup:
    """Make a gloo group of all ranks, for the hosts; a collective call.

    It waits as long as the default group does before it gives up
    (``env_cfg.dist_cfg.timeout``); by itself gloo would wait half an hour.

    Returns:
        ProcessGroup: The group.
    """
    device = torch.device(next(iter(_backends())))
    backend = dist.group.WORLD._get_backend(device)
    timeout = getattr(getattr(backend, 'options', None), '_timeout', None)
    known = {} if timeout is None else dict(timeout=timeout)
    return dist.new_group(backend='gloo', **known)


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

    The hosts wait for each other, but for no work on a GPU.

    Args:
        values (list[int]): The same number of int64 values on each rank.

    Returns:
        list[list[int]]: The values of each rank, in rank order.

    Raises:
        RuntimeError: If another rank has ended, or does not answer in time.
    """
    if get_world_size() == 1:
        return [values]
    group, device = _control_group()
    message = torch.tensor(values, dtype=torch.long, device=device)
    messages = [torch.empty_like(message) for _ in range(get_world_size())]
    try:
        dist.all_gather(messages, message, group=group)
    except RuntimeError as error:
        raise RuntimeError(_LOST.format(get_rank())) from error
    return torch.stack(messages).tolist()
