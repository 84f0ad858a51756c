"""Gather several tensors of all ranks in one collective."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from .comm import as_bytes, collective_device, exchange_integers, from_bytes


@torch.no_grad()
def gather_tensors(
    tensors: Sequence[Tensor], batch_sizes: list[int] | None = None
) -> list[Tensor]:
    """Concatenate tensors over the ranks, all of them in one collective.

    The rows of all tensors are packed side by side as bytes, so dtypes and
    widths may differ and every bit arrives as it was sent.

    Args:
        tensors (Sequence[Tensor]): (n, ...) tensors of any dtypes with the
            same n and on the same device, for example keys (n, C), labels
            (n,) and indices (n,). n may differ between ranks, the rest may
            not.
        batch_sizes (list[int], optional): n of every rank, in rank order,
            where it is known already (``ShufflePlan.batch_sizes``).
            Exchanged when None. Defaults to None.

    Returns:
        list[Tensor]: (sum of n, ...) tensors in rank order, without
        gradient; in one process the tensors given.

    Raises:
        ValueError: If the tensors differ in n or device, or if
            ``batch_sizes`` does not fit the ranks or this rank's n.
    """
    if not tensors:
        return []
    count = _common_length(tensors)
    if batch_sizes is None:
        batch_sizes = [n for (n,) in exchange_integers([count])]
    _check_batch_sizes(batch_sizes, count)
    if get_world_size() == 1:
        return [x.detach() for x in tensors]

    parts = [as_bytes(x) for x in tensors]
    rows = _all_gather_rows(torch.cat(parts, dim=1), batch_sizes)
    columns = rows.split([part.shape[1] for part in parts], dim=1)
    return [
        from_bytes(c, like=x) for c, x in zip(columns, tensors, strict=True)
    ]


def _common_length(tensors: Sequence[Tensor]) -> int:
    shapes = [tuple(x.shape) for x in tensors]
    if any(not shape for shape in shapes) or len({s[0] for s in shapes}) > 1:
        raise ValueError(
            'Tensors gathered together need the same first dimension, got '
            f'shapes {shapes}.'
        )
    devices = {str(x.device) for x in tensors}
    if len(devices) > 1:
        raise ValueError(
            'Tensors gathered together must be on one device, got '
            f'{sorted(devices)}.'
        )
    return shapes[0][0]


def _check_batch_sizes(batch_sizes: list[int], count: int) -> None:
    world_size, rank = get_world_size(), get_rank()
    if len(batch_sizes) != world_size:
        raise ValueError(
            f'`batch_sizes` has {len(batch_sizes)} entries for {world_size} '
            'processes; it needs one for each.'
        )
    if batch_sizes[rank] != count:
        raise ValueError(
            f'`batch_sizes` says {batch_sizes[rank]} rows for rank {rank}, '
            f'but its tensors have {count}.'
        )


def _all_gather_rows(rows: Tensor, batch_sizes: list[int]) -> Tensor:
    """All-gather (n, bytes) uint8 rows; uneven n are padded on the way."""
    largest = max(batch_sizes)
    mine = rows.new_zeros(
        (largest, rows.shape[1]), device=collective_device(rows.device)
    )
    mine[: rows.shape[0]] = rows
    gathered = mine.new_empty((len(batch_sizes), *mine.shape))
    dist.all_gather(list(gathered), mine)
    if min(batch_sizes) == largest:
        return gathered.flatten(0, 1)
    return torch.cat(
        [x[:n] for x, n in zip(gathered, batch_sizes, strict=True)]
    )
