"""Case ``shuffle``: bytes that shuffled BN sends on gloo processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from mmunimoco.models.batch_shuffle import ShufflePlan

from .processes import run_processes

WORLD_SIZES = (2, 4, 8)
# As published: 32 images of 224 x 224 per GPU, float32.
BATCH, IMAGE_SHAPE = 32, (3, 224, 224)


def shuffle(settings: Any) -> dict[str, Any]:
    """Run the case; see ``speed.py``."""
    shape = (3, 32, 32) if settings.quick else IMAGE_SHAPE
    worlds = WORLD_SIZES[:1] if settings.quick else WORLD_SIZES
    ours, gather = {}, {}
    for world_size in worlds:
        counts = run_processes(count_sent_bytes, world_size, (BATCH, *shape))
        ours[world_size], gather[world_size] = (
            sum(count[name] for count in counts) / world_size
            for name in ('all_to_all', 'all_gather')
        )
    return dict(
        what='bytes that a process sends to others for the key images of one '
        'step, mean over the processes: what the collectives are given in '
        'real gloo groups, not what a backend puts on the wire',
        batch_per_process=BATCH,
        image_shape=list(shape),
        ratios={
            f'{world_size} processes, all_to_all / all_gather': round(
                ours[world_size] / gather[world_size], 5
            )
            for world_size in worlds
        },
        bytes_per_process=ours,
        all_gather_bytes_per_process=gather,
    )


def count_sent_bytes(shape: tuple[int, ...]) -> dict[str, int]:
    """Shuffle a batch by ``ShufflePlan`` and by MoCo's all_gather.

    Args:
        shape (tuple[int, ...]): Of this rank's images (N, C, H, W).

    Returns:
        dict[str, int]: Bytes sent by this rank, by collective.
    """
    torch.manual_seed(0)
    images = torch.rand(shape)
    others = dist.get_world_size() - 1
    counts = {}
    with _count('all_to_all_single', counts, 'all_to_all', _bytes_by_split):
        ShufflePlan.draw(len(images), images.device).shuffle(images)
    with _count(
        'all_gather', counts, 'all_gather', lambda x, *_: x.nbytes * others
    ):
        gathered = [torch.empty_like(images) for _ in range(others + 1)]
        dist.all_gather(gathered, images)
    return counts


@contextmanager
def _count(
    collective: str,
    counts: dict[str, int],
    name: str,
    size: Callable[..., int],
) -> Iterator[None]:
    """Add what a collective sends to ``counts[name]`` while it is active."""
    original = getattr(dist, collective)
    counts[name] = 0

    def counted(output, x, *args, **kwargs):
        counts[name] += size(x, *args)
        return original(output, x, *args, **kwargs)

    with mock.patch.object(dist, collective, counted):
        yield


def _bytes_by_split(x: Tensor, receives: list[int], sends: list[int]) -> int:
    row = x[:1].numel() * x.element_size()
    return row * (sum(sends) - sends[dist.get_rank()])
