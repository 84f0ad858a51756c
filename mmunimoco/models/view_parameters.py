"""The random numbers behind a batch of views, drawn on the CPU.

The host has to know which images undergo what, or it would wait for the
device to tell; and then each operation can be left to just those images.
"""

import math
from collections.abc import Sequence

import torch
from mmengine.dist import get_rank
from torch import Tensor


def draw_generator() -> torch.Generator:
    """A generator for one batch, other on each rank, after torch's CPU seed.

    mmengine gives all ranks the same seed, and the same numbers for the
    images of each would be fewer augmentations in a step.
    """
    seed = int(torch.randint(2**62, ()))
    return torch.Generator().manual_seed(seed + get_rank())


def draw_chosen(
    n: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Which of n images are chosen, each for itself; (n,) bool."""
    return torch.rand(n, generator=generator) < probability


def draw_uniform(
    n: int, bounds: Sequence[float], generator: torch.Generator
) -> Tensor:
    """(n,) float32, even between two bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator)


def draw_orders(n: int, operations: int, generator: torch.Generator) -> Tensor:
    """A random order for each image; (n, operations) int64."""
    return torch.rand(n, operations, generator=generator).argsort(dim=1)


def draw_boxes(
    n: int,
    size: tuple[int, int],
    area: Sequence[float],
    aspect: Sequence[float],
    generator: torch.Generator,
    attempts: int = 10,
) -> Tensor:
    """Boxes of ``RandomResizedCrop`` in torchvision and mmpretrain.

    Args:
        n (int): How many.
        size (tuple[int, int]): Height and width of the images.
        area (Sequence[float]): Bounds of a box's share of the area.
        aspect (Sequence[float]): Bounds of width by height.
        generator (torch.Generator): Where numbers come from.
        attempts (int): How many boxes to try before the central one, in the
            nearest allowed shape, is taken. Defaults to 10.

    Returns:
        Tensor: (n, 4) float32, whole numbers: top, left, height, width.
    """
    height, width = size
    tries = n * attempts
    areas = draw_uniform(tries, area, generator) * (height * width)
    logs = [math.log(bound) for bound in aspect]
    ratios = draw_uniform(tries, logs, generator).exp()
    extents = torch.stack([areas / ratios, areas * ratios], dim=1)
    extents = extents.sqrt_().round_().view(n, attempts, 2)
    whole = torch.tensor([height, width])
    fits = ((extents > 0) & (extents <= whole)).all(dim=2)
    # The first that fits, or a last one that always does.
    fits = torch.cat([fits, torch.ones(n, 1, dtype=torch.bool)], dim=1)
    central = torch.tensor(_central_extent(size, aspect)).expand(n, 1, 2)
    extents = torch.cat([extents, central], dim=1)
    chosen = fits.to(torch.uint8).argmax(dim=1)
    extents = extents[torch.arange(n), chosen]
    room = whole - extents
    places = torch.rand(n, 2, generator=generator) * (room + 1)
    middle = (room / 2).floor()
    is_central = (chosen == attempts)[:, None]
    starts = torch.where(is_central, middle, places.floor_().minimum(room))
    return torch.cat([starts, extents], dim=1)


def _central_extent(size: tuple[int, int], aspect: Sequence[float]) -> list:
    height, width = size
    if width / height < min(aspect):
        height = round(width / min(aspect))
    elif width / height > max(aspect):
        width = round(height * max(aspect))
    return [float(height), float(width)]
