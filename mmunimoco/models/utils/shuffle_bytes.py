"""Count the bytes that shuffled BN sends, against those of an all_gather."""

import json
from collections.abc import Sequence
from multiprocessing import set_forkserver_preload
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import start_processes

from .batch_shuffle import ShufflePlan


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
    return {
        world_size: _measure(world_size, (batch_size, *image_shape))
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


def _measure(world_size: int, shape: tuple[int, ...]) -> dict[str, float]:
    # Processes are forked from a server that has imported this once.
    set_forkserver_preload([__name__])
    with TemporaryDirectory() as folder:
        start_processes(
            _run_rank,
            args=(world_size, shape, folder),
            nprocs=world_size,
            start_method='forkserver',
        )
        files = [Path(folder) / f'{rank}.json' for rank in range(world_size)]
        counts = [json.loads(file.read_text()) for file in files]
    return {
        name: sum(count[name] for count in counts) / world_size
        for name in ('all_to_all', 'all_gather')
    }


def _run_rank(
    rank: int, world_size: int, shape: tuple[int, ...], folder: str
) -> None:
    """Shuffle one batch in both ways, and write down what was sent."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=world_size,
    )
    torch.manual_seed(0)
    images = torch.rand(shape)
    counts = {}
    with _count('all_to_all_single', counts, 'all_to_all', _bytes_by_split):
        ShufflePlan.draw(len(images), images.device).shuffle(images)
    with _count('all_gather', counts, 'all_gather', _bytes_to_all):
        gathered = [torch.empty_like(images) for _ in range(world_size)]
        dist.all_gather(gathered, images)
    Path(folder, f'{rank}.json').write_text(json.dumps(counts))
    dist.barrier()
    dist.destroy_process_group()


def _count(collective: str, counts: dict[str, int], name: str, size):
    """Add what a collective sends to ``counts[name]`` while it is active."""
    original = getattr(dist, collective)
    counts[name] = 0

    def counted(output, x, *args, **kwargs):
        counts[name] += size(x, *args)
        return original(output, x, *args, **kwargs)

    return mock.patch.object(dist, collective, counted)


def _bytes_by_split(x: Tensor, receives: list[int], sends: list[int]) -> int:
    row = x[:1].numel() * x.element_size()
    return row * (sum(sends) - sends[dist.get_rank()])


def _bytes_to_all(x: Tensor) -> int:
    return x.numel() * x.element_size() * (dist.get_world_size() - 1)
