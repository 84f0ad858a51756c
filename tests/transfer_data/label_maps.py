"""Label maps of vertical strips, and images that show the labels."""

import numpy as np


def strips(labels: list[int], height: int, width: int) -> np.ndarray:
    """Return a map (height, width), uint8, of one vertical strip per label."""
    columns = np.arange(width) * len(labels) // width
    row = np.asarray(labels, dtype=np.uint8)[columns]
    return np.repeat(row[None], height, axis=0)


def picture(label_map: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image (height, width, 3), uint8: a colour per label, noise."""
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    noise = rng.normal(0, 20, (*label_map.shape, 3))
    return np.clip(colours[label_map] + noise, 0, 255).astype(np.uint8)
