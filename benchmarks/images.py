"""Photographs for the input path: the user's, or drawn ones of their size."""

import os
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional

# What ImageNet's photographs are on average.
HEIGHT, WIDTH, QUALITY = 375, 500, 92
COUNT = 64
# Size of the grain in pixels -> its strength.
SCALES = {128: 50, 32: 30, 8: 16, 2: 26}
ENVIRONMENT = 'IMAGENET_SAMPLES'


def find_images(folder: Path) -> list[Path]:
    """List the JPEG files in a folder and below.

    Raises:
        FileNotFoundError: If there is none.
    """
    found = sorted(
        path
        for path in Path(folder).rglob('*')
        if path.suffix.lower() in ('.jpg', '.jpeg')
    )
    if not found:
        raise FileNotFoundError(
            f'{folder} has no *.jpg or *.jpeg: give a folder of photographs '
            f'by --images or {ENVIRONMENT}, or neither, and some are drawn'
        )
    return found


def choose_images(given: Path | None, folder: Path) -> tuple[Path, str]:
    """Find the folder of images, or fill one.

    Args:
        given (Path, optional): What the user asked for.
        folder (Path): Where images are drawn if nothing is given, neither
            here nor by ``IMAGENET_SAMPLES``.

    Returns:
        tuple[Path, str]: The folder, and what is in it, for the report.

    Raises:
        FileNotFoundError: If a folder is given that has no JPEG files.
    """
    given = given or os.environ.get(ENVIRONMENT)
    if given:
        found = find_images(Path(given))
        return Path(given), describe(found, 'photographs')
    found = draw_images(folder)
    return folder, describe(found, 'drawn images')


def describe(paths: list[Path], noun: str) -> str:
    """'250 photographs, 110 kB on average'."""
    size = sum(path.stat().st_size for path in paths) / len(paths)
    return f'{len(paths)} {noun}, JPEG, {size / 1000:.0f} kB on average'


def draw_images(folder: Path, count: int = COUNT) -> list[Path]:
    """Write JPEG files that take as long to decode as ImageNet's.

    Noise at several scales: smooth areas and fine grain, as in photographs.

    Args:
        folder (Path): Made if it is not there.
        count (int): How many.

    Returns:
        list[Path]: The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    paths = []
    for index in range(count):
        image = torch.full((1, 3, HEIGHT, WIDTH), 128.0)
        for scale, strength in SCALES.items():
            size = (1, 3, HEIGHT // scale + 1, WIDTH // scale + 1)
            noise = strength * torch.randn(size, generator=generator)
            image += functional.interpolate(
                noise, (HEIGHT, WIDTH), mode='bicubic', align_corners=False
            )
        pixels = image[0].clamp(0, 255).byte().permute(1, 2, 0)
        paths.append(folder / f'{index:03d}.jpg')
        Image.fromarray(pixels.numpy()).save(paths[-1], quality=QUALITY)
    return paths


def link_images(images: Path, count: int, folder: Path) -> Path:
    """Make a folder with links to some images.

    Args:
        images (Path): Folder of images.
        count (int): How many, evenly over the folder; all if it has fewer.
        folder (Path): The folder to make; must not be there.

    Returns:
        Path: The folder.
    """
    folder.mkdir(parents=True)
    found = find_images(images)
    step = max(len(found) / count, 1)
    chosen = [found[int(i * step)] for i in range(min(count, len(found)))]
    for index, path in enumerate(chosen):
        link = folder / f'{index:06d}{path.suffix}'
        link.symlink_to(path.resolve())
    return folder
