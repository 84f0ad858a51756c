"""Scenes composed of small gray images, with exact boxes and masks.

A scene is a textured background with one to five objects, drawn from back to
front. It depends on the seed alone.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_fill_holes

from mmunimoco.datasets.npz_images import NpzSplit

# Pixels of at least this gray value belong to the object, as do the holes that
# they enclose (a dark print on a shirt).
OBJECT_GRAY = 16
MAX_OBJECTS = 5
SIZE_RANGE = (24, 64)
# Fraction of each object that stays visible.
MIN_VISIBLE = 0.5
_TRIES = 20
_SPLITS = ('train', 'test')


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        label: Class, 0 to 9.
        source: Index of its image in the original file.
        mask: (size, size) bool, the visible part; never empty.
    """

    label: int
    source: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width and height of the visible part in pixels (COCO)."""
        x1, y1, x2, y2 = self.corners
        return x1, y1, x2 - x1, y2 - y1

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 of the visible part; x2 and y2 lie outside."""
        rows, columns = (np.flatnonzero(self.mask.any(a)) for a in (1, 0))
        x1, y1 = int(columns[0]), int(rows[0])
        return x1, y1, int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class Scene:
    """An image and its objects.

    Attributes:
        image: (size, size, 3) uint8, RGB.
        objects: One to five, from back to front.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]

    @property
    def semantic(self) -> np.ndarray:
        """(size, size) uint8: 0 background, class + 1 elsewhere."""
        classes = np.zeros(self.image.shape[:2], np.uint8)
        for item in self.objects:
            classes[item.mask] = item.label + 1
        return classes


def compose_scene(
    source: NpzSplit,
    split: str,
    index: int,
    seed: int = 0,
    size: int = 128,
) -> Scene:
    """Compose one scene.

    Args:
        source (NpzSplit): Images of the objects.
        split (str): 'train' or 'test'; selects the random stream.
        index (int): Number of the scene.
        seed (int): Random seed. Defaults to 0.
        size (int): Height and width in pixels. Defaults to 128.

    Returns:
        Scene: The same for the same arguments.

    Raises:
        ValueError: If the split is unknown or the size is too small.
    """
    if split not in _SPLITS:
        raise ValueError(f'split must be one of {_SPLITS}, got {split!r}')
    if size < SIZE_RANGE[1]:
        raise ValueError(
            f'size must be {SIZE_RANGE[1]} (the largest object) or more, got '
            f'{size}'
        )
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    image = _background(rng, size)
    objects, areas = [], []
    for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
        chosen = int(rng.integers(len(source.images)))
        patch = _scaled_object(rng, source.images[chosen])
        layer = _place(rng, patch, objects, areas, size)
        if layer is None:
            continue
        gray, alpha = layer
        mask = alpha >= 0.5
        objects = [replace(o, mask=o.mask & ~mask) for o in objects]
        label, origin = source.labels[chosen], source.indices[chosen]
        objects.append(SceneObject(int(label), int(origin), mask))
        areas.append(mask.sum())
        tint = rng.uniform(0.75, 1.0, 3)
        image += alpha[..., None] * (gray[..., None] * tint - image)
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Scene(pixels, tuple(objects))


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float64: clouds, stripes and grain, rather dark."""
    cells = int(rng.integers(3, 9))
    clouds = _resize(rng.uniform(-1, 1, (cells, cells)), size)
    turn, phase = rng.uniform(0, 2 * np.pi, 2)
    y, x = np.mgrid[:size, :size]
    along = x * np.cos(turn) + y * np.sin(turn)
    stripes = np.sin(2 * np.pi * along / rng.uniform(5, 25) + phase)
    grain = rng.standard_normal((size, size))
    texture = (
        rng.uniform(25, 65)
        + rng.uniform(5, 25) * clouds
        + rng.uniform(0, 15) * stripes
        + rng.uniform(0, 8) * grain
    )
    return texture[..., None] * rng.uniform(0.75, 1.25, 3)


def _scaled_object(
    rng: np.random.Generator, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and mirror an image at random.

    Returns:
        tuple[np.ndarray, np.ndarray]: Gray values and opacity (0 to 1), both
        (n, n) float64.
    """
    if rng.random() < 0.5:
        image = image[:, ::-1]
    silhouette = binary_fill_holes(image >= OBJECT_GRAY)
    size = int(rng.integers(SIZE_RANGE[0], SIZE_RANGE[1] + 1))
    return _resize(image, size), _resize(silhouette, size)


def _place(
    rng: np.random.Generator,
    patch: tuple[np.ndarray, np.ndarray],
    objects: list[SceneObject],
    areas: list[int],
    size: int,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Place a patch so that each object stays visible to ``MIN_VISIBLE``.

    Returns:
        tuple[np.ndarray, np.ndarray] | None: The patch in (size, size) zeros,
        or None if no place was found.
    """
    length = len(patch[0])
    for _ in range(_TRIES):
        top, left = rng.integers(0, size - length + 1, 2)
        end = size - length - np.array([top, left])
        gray, alpha = (
            np.pad(part, ((top, end[0]), (left, end[1]))) for part in patch
        )
        free = alpha < 0.5
        if all(
            (item.mask & free).sum() >= MIN_VISIBLE * area
            for item, area in zip(objects, areas, strict=True)
        ):
            return gray, alpha
    return None


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """Scale an (n, n) image bilinearly to (size, size) float64."""
    n = len(image)
    # Pixel centres lie half a pixel from the border.
    place = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    distance = np.abs(place[:, None] - np.arange(n))
    weights = np.clip(1 - distance, 0, None)
    return weights @ image @ weights.T
