"""JPEG photographs for the input path: given ones, or synthetic ones."""

import os
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional

# Average size and quality of ImageNet's photographs.
HEIGHT, WIDTH, QUALITY = 375, 500, 92
# Grain size in pixels -> amplitude of the noise.
SCALES = {128: 50, 32: 30, 8: 16, 2: 26}
ENVIRONMENT = 'IMAGENET_SAMPLES'


def find_images(folder: Path) -> list[Path]:
    """List the JPEG files in a folder and its subfolders.

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
            f'{folder} has no *.jpg or *.jpeg: name a folder of photographs '
            f'by --images or ${ENVIRONMENT}, or neither to use synthetic ones'
        )
    return found


def choose_images(given: Path | None, folder: Path) -> tuple[Path, str]:
    """Return the folder of images to read and a description for the record.

    Args:
        given (Path | None): The user's folder; None to use the one that
            ``$IMAGENET_SAMPLES`` names, or synthetic images without it.
        folder (Path): Where synthetic images are written.

    Raises:
        FileNotFoundError: If the named folder has no JPEG files.
    """
    given = given or os.environ.get(ENVIRONMENT)
    if given:
        folder, kind = Path(given), 'photographs'
        found = find_images(folder)
    else:
        kind, found = 'synthetic images', write_images(folder)
    size = sum(path.stat().st_size for path in found) / len(found)
    text = f'{len(found)} {kind}, JPEG, {size / 1000:.0f} kB on average'
    return folder, text


def write_images(folder: Path, count: int = 64) -> list[Path]:
    """Write synthetic JPEG files that decode as slowly as ImageNet's.

    The images are noise at several scales: smooth areas and fine grain.

    Args:
        folder (Path): Created if missing.
        count (int): Number of images. Defaults to 64.

    Returns:
        list[Path]: The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    paths = []
    for index in range(count):
        image = torch.full((1, 3, HEIGHT, WIDTH), 128.0)
        for scale, amplitude in SCALES.items():
            size = (1, 3, HEIGHT // scale + 1, WIDTH // scale + 1)
            noise = amplitude * torch.randn(size, generator=generator)
            image += functional.interpolate(
                noise, (HEIGHT, WIDTH), mode='bicubic', align_corners=False
            )
        pixels = image[0].clamp(0, 255).byte().permute(1, 2, 0)
        paths.append(folder / f'{index:03d}.jpg')
        Image.fromarray(pixels.numpy()).save(paths[-1], quality=QUALITY)
    return paths
