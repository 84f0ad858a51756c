"""Collectives that move whole rows of any dtype between all ranks."""

import atexit
import time
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from math import prod

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor


def upload(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; from the CPU without blocking the host.

    Args:
        x (Tensor): Any shape and dtype. A CPU tensor must not be written to
            afterwards.
        device (torch.device): Destination.
    """
    if x.device.type != 'cpu' or device.type != 'cuda':
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def collective_device(device: torch.device) -> torch.device:
    """Return where the default group takes tensors that live on ``device``.

    gloo exchanges CPU tensors only (it has no all_to_all for CUDA), NCCL
    CUDA tensors only.
    """
    backends = _backends()
    if backends.get(device.type, 'gloo') != 'gloo':
        return device
    return torch.device('cpu' if 'cpu' in backends else next(iter(backends)))


def _backends() -> dict[str, str]:
    """Return the backend of the default group for each device type."""
    config = dist.get_backend_config()
    return dict(item.split(':') for item in config.split(','))


def exchange_integers(values: list[int]) -> list[list[int]]:
    """All-gather a few integers that the hosts read.

    The hosts wait for each other, but not for work queued on a GPU.

    Args:
        values (list[int]): As many int64 values on every rank.

    Returns:
        list[list[int]]: The values of each rank, in rank order.

    Raises:
        RuntimeError: If another rank has ended or does not answer in time.
    """
    if get_world_size() == 1:
        return [values]
    group, device = _host_group()
    message = torch.tensor(values, dtype=torch.long, device=device)
    messages = [torch.empty_like(message) for _ in range(get_world_size())]
    try:
        dist.all_gather(messages, message, group=group)
    except RuntimeError as error:
        raise RuntimeError(
            f'rank {get_rank()} lost another process, which has ended or '
            'does not answer; the cause is in the output of that process'
        ) from error
    return torch.stack(messages).tolist()


def _host_group() -> tuple[dist.ProcessGroup | None, torch.device]:
    """Return a group and device for messages that the host reads.

    NCCL would deliver them after all work queued on the GPU. If the default
    group has no gloo, one is created beside it at the first call.
    """
    if _backends().get('cpu') == 'gloo':
        return None, torch.device('cpu')
    if not dist.is_gloo_available():
        return None, collective_device(torch.device('cpu'))
    return _cached_gloo_group(dist.group.WORLD), torch.device('cpu')


@lru_cache(maxsize=1)
def _cached_gloo_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """Return one gloo group per default group (``world`` is the cache key)."""
    return new_gloo_group()


def new_gloo_group() -> dist.ProcessGroup:
    """Create a gloo group of all ranks; a collective call.

    Its timeout is that of the default group (``env_cfg.dist_cfg.timeout``)
    instead of gloo's half an hour.
    """
    device = torch.device(next(iter(_backends())))
    backend = dist.group.WORLD._get_backend(device)
    timeout = getattr(getattr(backend, 'options', None), '_timeout', None)
    options = {} if timeout is None else dict(timeout=timeout)
    await_gloo_at_exit()
    return dist.new_group(backend='gloo', **options)


@cache  # once per process
def await_gloo_at_exit() -> None:
    """Give gloo's threads half a second before Python ends.

    After a collective each takes Python's lock once more. If Python is being
    finalized by then, up to 3.13, that ends the process by SIGABRT, and a run
    that is finished looks failed (pytorch/pytorch#179291). They can only be
    joined once nothing refers to their group any more, as DDP does.
    """
    atexit.register(time.sleep, 0.5)


@torch.no_grad()
def gather_tensors(
    tensors: Sequence[Tensor], batch_sizes: list[int]
) -> list[Tensor]:
    """Concatenate several tensors over the ranks in one collective.

    The rows of all tensors are packed side by side as bytes, so dtypes and
    widths may differ and every bit arrives unchanged.

    Args:
        tensors (Sequence[Tensor]): One or more tensors (n, ...) of any
            dtype, on one device. n may differ between ranks, the other
            dimensions may not.
        batch_sizes (list[int]): n of every rank, in rank order.

    Returns:
        list[Tensor]: Shape (sum of n, ...), in rank order, without gradient;
        in a single process the given tensors.

    Raises:
        ValueError: If ``batch_sizes`` does not fit the tensors or the ranks.
    """
    lengths = {len(x) for x in tensors}
    if len(batch_sizes) != get_world_size() or lengths != {
        batch_sizes[get_rank()]
    }:
        raise ValueError(
            f'batch_sizes={batch_sizes} must hold the number of rows of each '
            f'of {get_world_size()} processes, but the tensors of rank '
            f'{get_rank()} have {sorted(lengths)} rows'
        )
    if get_world_size() == 1:
        return [x.detach() for x in tensors]
    parts = [as_bytes(x) for x in tensors]
    rows = _all_gather_rows(torch.cat(parts, dim=1), batch_sizes)
    columns = rows.split([part.shape[1] for part in parts], dim=1)
    return [
        from_bytes(c, like=x) for c, x in zip(columns, tensors, strict=True)
    ]


def _all_gather_rows(rows: Tensor, batch_sizes: list[int]) -> Tensor:
    """All-gather (n, bytes) uint8 rows, padded to the largest n."""
    largest = max(batch_sizes)
    mine = rows.new_zeros(
        (largest, rows.shape[1]), device=collective_device(rows.device)
    )
    mine[: len(rows)] = rows
    gathered = mine.new_empty((len(batch_sizes), *mine.shape))
    dist.all_gather(list(gathered), mine)
    return torch.cat(
        [x[:n] for x, n in zip(gathered, batch_sizes, strict=True)]
    )


def start_all_to_all(
    rows: Tensor, sends: list[int], receives: list[int], async_op: bool
) -> Callable[[], Tensor]:
    """Exchange rows: ``sends[r]`` go to rank r, ``receives[r]`` come from it.

    Args:
        rows (Tensor): (n, ...) of any dtype, ordered by destination. They
            travel as bytes: gloo has no all_to_all for bool and bfloat16.
        sends (list[int]): Rows for each rank.
        receives (list[int]): Rows from each rank.
        async_op (bool): Whether to return before the rows have arrived.

    Returns:
        Callable[[], Tensor]: Waits, on a GPU without blocking the host, and
        returns the rows in the order of their sources.
    """
    sent = as_bytes(rows).to(collective_device(rows.device))
    received = torch.empty_like(sent)
    work = dist.all_to_all_single(
        received, sent, receives, sends, async_op=async_op
    )

    def finish() -> Tensor:
        if work is not None:
            work.wait()
        return from_bytes(received, like=rows)

    return finish


def as_bytes(x: Tensor) -> Tensor:
    """View the rows of a tensor (n, ...) as (n, bytes per row) uint8."""
    rows = x.detach().reshape(x.shape[0], prod(x.shape[1:]))
    # A width of 1 is contiguous with any stride, but not viewable as bytes.
    if not rows.is_contiguous() or rows.stride(-1) != 1:
        rows = rows.clone(memory_format=torch.contiguous_format)
    return rows.view(torch.uint8)


def from_bytes(rows: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`as_bytes`: (m, bytes per row) to (m, ...) as in ``like``."""
    # A copy, as the bytes of a slice need not be aligned for the dtype.
    rows = rows.clone(memory_format=torch.contiguous_format)
    rows = rows.view(like.dtype).view(rows.shape[0], *like.shape[1:])
    return rows.to(like.device)
