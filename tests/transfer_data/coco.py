"""A tiny COCO 2017, as its archives unpack.

``train2017/`` and ``val2017/`` hold the images, ``annotations/`` the objects
of each in ``instances_{train,val}2017.json``.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

# The 80 names by their ids, which go up to 90: some are not used.
CATEGORIES = {
    index: name
    for index, name in enumerate(
        FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta['categories']
    )
    if name not in ('__background__', 'N/A')
}


@dataclass
class Thing:
    """A rectangle in an image: place in pixels and number of its class."""

    label: int
    left: int
    top: int
    width: int
    height: int

    @property
    def polygon(self) -> list[float]:
        """The corners x, y, x, y, ... in order."""
        right, bottom = self.left + self.width, self.top + self.height
        corners = [self.left, self.top, right, self.top]
        return [float(x) for x in [*corners, right, bottom, self.left, bottom]]


def draw_things(
    rng: np.random.Generator, size: tuple[int, int], labels: list[int]
) -> tuple[Image.Image, list[Thing]]:
    """Draw one rectangle a label, side by side, in colours of the labels.

    Args:
        rng (np.random.Generator): Chooses places and noise.
        size (tuple[int, int]): Width and height in pixels.
        labels (list[int]): What to draw.

    Returns:
        tuple[Image.Image, list[Thing]]: The image, and what is in it.
    """
    width, height = size
    colours = np.random.default_rng(0).integers(0, 256, (2000, 3))
    pixels = rng.normal(127, 30, (height, width, 3))
    column = width // len(labels)
    things = []
    for place, label in enumerate(labels):
        thing = Thing(
            label=label,
            left=place * column + int(rng.integers(1, column // 4)),
            top=int(rng.integers(1, height // 4)),
            width=int(rng.integers(column // 2, column * 3 // 4)),
            height=int(rng.integers(height // 2, height * 3 // 4)),
        )
        rows = slice(thing.top, thing.top + thing.height)
        columns = slice(thing.left, thing.left + thing.width)
        pixels[rows, columns] = colours[label]
        things.append(thing)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image, things


def write_coco(
    root: Path,
    size: tuple[int, int] = (96, 64),
    train_images: int = 4,
    val_images: int = 2,
) -> Path:
    """Write images and annotations below ``root`` and return it.

    Every image shows two objects and, as COCO has it, a crowd: a region of
    many objects with a run-length mask in place of a polygon.

    Args:
        root (Path): The folder that configs call ``data/coco``.
        size (tuple[int, int]): Width and height of the images. Defaults to
            (96, 64).
        train_images (int): How many images to train on. Defaults to 4.
        val_images (int): How many images to validate on. Defaults to 2.

    Returns:
        Path: ``root``.
    """
    root = Path(root)
    (root / 'annotations').mkdir(parents=True)
    first = 1
    for split, count in dict(train=train_images, val=val_images).items():
        content = _write_split(root / f'{split}2017', size, count, first)
        path = root / f'annotations/instances_{split}2017.json'
        path.write_text(json.dumps(content))
        first += count
    return root


def _write_split(folder, size, count, first):
    """Write the images of a split; return the content of its json."""
    folder.mkdir()
    rng = np.random.default_rng(first)
    ids = list(CATEGORIES)
    content = dict(
        info=dict(description='invented', year=2017),
        licenses=[dict(id=1, name='none', url='')],
        images=[],
        annotations=[],
        categories=[
            dict(id=i, name=name, supercategory='thing')
            for i, name in CATEGORIES.items()
        ],
    )
    for image_id in range(first, first + count):
        labels = rng.choice(ids, 3, replace=False).tolist()
        image, things = draw_things(rng, size, labels)
        name = f'{image_id:012d}.jpg'
        image.save(folder / name)
        content['images'].append(image_entry(image_id, name, size))
        for number, thing in enumerate(things):
            content['annotations'].append(
                dict(
                    id=image_id * 10 + number,
                    image_id=image_id,
                    **_annotation(thing, size, iscrowd=number == 2),
                )
            )
    return content


def image_entry(image_id: int, name: str, size: tuple[int, int]) -> dict:
    """One of ``images``, with the fields of COCO."""
    return dict(
        id=image_id,
        file_name=name,
        coco_url=f'http://images.cocodataset.org/train2017/{name}',
        flickr_url='',
        date_captured='2013-11-14 16:28:13',
        license=1,
        width=size[0],
        height=size[1],
    )


def _annotation(thing, size, iscrowd):
    return dict(
        category_id=thing.label,
        bbox=[thing.left, thing.top, thing.width, thing.height],
        area=thing.width * thing.height,
        iscrowd=int(iscrowd),
        segmentation=_run_lengths(thing, size) if iscrowd else [thing.polygon],
    )


def _run_lengths(thing, size):
    """The mask as counts of zeros and ones in turn, down the columns."""
    width, height = size
    encoded = mask_utils.frPyObjects([thing.polygon], height, width)
    flat = mask_utils.decode(encoded)[..., 0].flatten(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges).tolist()
    if flat[0]:  # the first count is one of zeros
        counts.insert(0, 0)
    return dict(counts=counts, size=[height, width])
