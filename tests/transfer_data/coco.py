"""A tiny COCO 2017, as its archives unpack.

``train2017/`` and ``val2017/`` hold the images,
``annotations/instances_{train,val}2017.json`` the objects.
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
class Box:
    """A rectangle in an image, in pixels, with its label."""

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

    def annotation(self, image_id: int, number: int) -> dict:
        """Return an annotation as COCO and LVIS have it."""
        return dict(
            id=image_id * 10 + number,
            image_id=image_id,
            category_id=self.label,
            bbox=[self.left, self.top, self.width, self.height],
            area=self.width * self.height,
            segmentation=[self.polygon],
        )


def draw_boxes(rng, size, labels):
    """Draw one rectangle per label, side by side, coloured by label.

    Args:
        rng (np.random.Generator): Draws places and noise.
        size (tuple[int, int]): Width and height of the image in pixels.
        labels (list[int]): Labels of the rectangles.

    Returns:
        tuple[Image.Image, list[Box]]: The image and its rectangles.
    """
    width, height = size
    colours = np.random.default_rng(0).integers(0, 256, (2000, 3))
    pixels = rng.normal(127, 30, (height, width, 3))
    column = width // len(labels)
    boxes = []
    for place, label in enumerate(labels):
        box = Box(
            label=label,
            left=place * column + int(rng.integers(1, column // 4)),
            top=int(rng.integers(1, height // 4)),
            width=int(rng.integers(column // 2, column * 3 // 4)),
            height=int(rng.integers(height // 2, height * 3 // 4)),
        )
        rows = slice(box.top, box.top + box.height)
        columns = slice(box.left, box.left + box.width)
        pixels[rows, columns] = colours[label]
        boxes.append(box)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), boxes


def write_coco(root: Path, size=(96, 64), train_images=4) -> Path:
    """Write images and annotations below ``root`` (``data/coco``).

    Every image shows two objects and a crowd: a region of many objects with a
    run-length mask instead of a polygon.

    Args:
        root (Path): The folder to make.
        size (tuple[int, int]): Width and height of the images.
        train_images (int): Number of training images; two are for validation.

    Returns:
        Path: ``root``.
    """
    (root / 'annotations').mkdir(parents=True)
    first = 1
    for split, count in dict(train=train_images, val=2).items():
        content = _write_split(root / f'{split}2017', size, count, first)
        path = root / f'annotations/instances_{split}2017.json'
        path.write_text(json.dumps(content))
        first += count
    return root


def _write_split(folder, size, count, first):
    """Write the images of a split; return the content of its JSON."""
    folder.mkdir()
    rng = np.random.default_rng(first)
    images, annotations = [], []
    for image_id in range(first, first + count):
        labels = rng.choice(list(CATEGORIES), 3, replace=False).tolist()
        image, boxes = draw_boxes(rng, size, labels)
        name = f'{image_id:012d}.jpg'
        image.save(folder / name)
        images.append(image_entry(image_id, name, size))
        *objects, crowd = boxes
        for number, box in enumerate(objects):
            annotations.append(
                dict(box.annotation(image_id, number), iscrowd=0)
            )
        annotations.append(
            dict(
                crowd.annotation(image_id, len(objects)),
                iscrowd=1,
                segmentation=_run_lengths(crowd, size),
            )
        )
    categories = [
        dict(id=i, name=name, supercategory='thing')
        for i, name in CATEGORIES.items()
    ]
    return dict(
        info=dict(description='invented', year=2017),
        licenses=[dict(id=1, name='none', url='')],
        images=images,
        annotations=annotations,
        categories=categories,
    )


def image_entry(image_id: int, name: str, size: tuple[int, int]) -> dict:
    """Return an entry of ``images`` with the fields of COCO."""
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


def _run_lengths(box, size):
    """Return the mask as alternating counts of 0 and 1, column by column."""
    width, height = size
    encoded = mask_utils.frPyObjects([box.polygon], height, width)
    flat = mask_utils.decode(encoded)[..., 0].flatten(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    if flat[0]:  # the first count is of zeros
        counts.insert(0, 0)
    return dict(counts=counts, size=[height, width])
