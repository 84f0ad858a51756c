"""Label maps of rectangles, and images in which the labels can be seen."""

import numpy as np


def strips(labels: list[int], height: int, width: int) -> np.ndarray:
    """A map (height, width) of upright strips, one a label, uint8."""
    columns = np.arange(width) * len(labels) // width
    row = np.asarray(labels, dtype=np.uint8)[columns]
    return np.repeat(row[None], height, axis=0)


def picture(label_map: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image (height, width, 3), uint8: a colour a label, and noise."""
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    noise = rng.normal(0, 20, (*label_map.shape, 3))
    image = np.clip(colours[label_map] + noise, 0, 255)
    return image.astype(np.uint8)
