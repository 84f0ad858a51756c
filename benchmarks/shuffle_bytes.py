"""Count the bytes that shuffled BN sends, against those of an all_gather."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from mmunimoco.models.batch_shuffle import ShufflePlan

from .processes import run_processes


def measure_shuffle_bytes(
    world_sizes: Sequence[int] = (2, 4, 8),
    batch_size: int = 32,
    image_shape: Sequence[int] = (3, 32, 32),
) -> dict[int, dict[str, float]]:
    """Shuffle a batch on gloo processes, and count what each rank sends.

    What the collectives are told to send to other ranks is counted, not what
    a backend makes of it on the wire. A script that calls this needs the
    usual ``if __name__ == '__main__':``, as processes are started.

    Args:
        world_sizes (Sequence[int]): Numbers of processes to try, each at
            least 1.
        batch_size (int): Images of each rank.
        image_shape (Sequence[int]): Of one image, float32.

    Returns:
        dict[int, dict[str, float]]: For each number of processes the bytes a
        rank sends for the images of one step, as a mean over the ranks: with
        ``all_to_all``, as :class:`ShufflePlan` does, and with ``all_gather``,
        as MoCo's published code does.
    """
    shape = (batch_size, *image_shape)
    return {
        world_size: _mean(run_processes(count_of_a_rank, world_size, shape))
        for world_size in world_sizes
    }


def shuffle_bytes_table(sent: dict[int, dict[str, float]]) -> str:
    """Write the result of :func:`measure_shuffle_bytes` as a table."""
    rows = ['| processes | all_to_all | all_gather | ratio |']
    rows.append('| --------: | ---------: | ---------: | ----: |')
    for world_size, counts in sent.items():
        ours, theirs = counts['all_to_all'], counts['all_gather']
        ratio = f'{theirs / ours:.1f}' if ours else '-'
        rows.append(f'| {world_size} | {ours:.0f} | {theirs:.0f} | {ratio} |')
    return '\n'.join(rows)


def count_of_a_rank(shape: tuple[int, ...]) -> dict[str, int]:
    """Shuffle one batch in both ways; bytes that this rank sends."""
    torch.manual_seed(0)
    images = torch.rand(shape)
    counts = {}
    with _count('all_to_all_single', counts, 'all_to_all', _bytes_by_split):
        ShufflePlan.draw(len(images), images.device).shuffle(images)
    with _count('all_gather', counts, 'all_gather', _bytes_to_all):
        gathered = [
            torch.empty_like(images) for _ in range(dist.get_world_size())
        ]
        dist.all_gather(gathered, images)
    return counts


def _mean(counts: list[dict[str, int]]) -> dict[str, float]:
    return {
        name: sum(count[name] for count in counts) / len(counts)
        for name in counts[0]
    }


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


def _bytes_to_all(x: Tensor) -> int:
    return x.numel() * x.element_size() * (dist.get_world_size() - 1)
