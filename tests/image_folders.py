"""Tiny image folders and models for tests that run the real pipelines."""

from pathlib import Path

import numpy as np
from PIL import Image

# Mean and spread of the noise are the same for all files of a class, so that
# even an untrained backbone tells the classes apart better than chance.
NARROW_RESNET = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
FEATURES = 64  # of NARROW_RESNET


def write_image_folder(
    root: Path,
    classes: int = 3,
    per_class: int = 6,
    size: int = 32,
    seed: int = 0,
) -> Path:
    """Write root/class_0/0.png ... and return root."""
    rng = np.random.default_rng(seed)
    for label in range(classes):
        folder = Path(root) / f'class_{label}'
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            mean = np.full(3, 60.0)
            mean[label % 3] = 180
            noise = rng.normal(0, 25, (size, size, 3))
            image = np.clip(mean + noise + rng.normal(0, 30), 0, 255)
            Image.fromarray(image.astype(np.uint8)).save(
                folder / f'{index}.png'
            )
    return Path(root)
