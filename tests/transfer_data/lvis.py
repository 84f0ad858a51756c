"""A tiny LVIS v1: its annotations beside the images of COCO.

``annotations/lvis_v1_{train,val}.json`` name the images by ``coco_url``
alone; some of LVIS's validation images are training images of COCO.
"""

import json
from pathlib import Path

import numpy as np
from transfer_data.coco import draw_things, image_entry

NUM_CATEGORIES = 1203
RARE, FREQUENT = 1, 1203  # ids that every image shows, and a third


def write_lvis(
    root: Path,
    size: tuple[int, int] = (96, 64),
    train_images: int = 4,
    val_images: int = 2,
) -> Path:
    """Write images and annotations below ``root`` and return it.

    Every image shows three objects, and says which of the other categories
    are not in it and which are not annotated exhaustively.

    Args:
        root (Path): The folder that configs call ``data/lvis_v1``.
        size (tuple[int, int]): Width and height of the images. Defaults to
            (96, 64).
        train_images (int): How many images to train on. Defaults to 4.
        val_images (int): How many images to validate on, the last of them
            from ``train2017/``. Defaults to 2.

    Returns:
        Path: ``root``.
    """
    root = Path(root)
    for name in ('annotations', 'train2017', 'val2017'):
        (root / name).mkdir(parents=True)
    first = 1
    for split, count in dict(train=train_images, val=val_images).items():
        folders = [f'{split}2017'] * (count - 1) + ['train2017']
        content = _write_split(root, folders, size, first)
        path = root / f'annotations/lvis_v1_{split}.json'
        path.write_text(json.dumps(content))
        first += count
    return root


def _write_split(root, folders, size, first):
    """Write an image into each folder; return the content of the json."""
    rng = np.random.default_rng(first)
    images, annotations = [], []
    for image_id, folder in enumerate(folders, start=first):
        other = int(rng.integers(RARE + 1, FREQUENT - 2))
        labels = [RARE, other, FREQUENT]
        image, things = draw_things(rng, size, labels)
        name = f'{image_id:012d}.jpg'
        image.save(root / folder / name)
        entry = image_entry(image_id, name, size)
        # There is no file_name in LVIS v1.
        del entry['file_name']
        entry.update(
            coco_url=f'http://images.cocodataset.org/{folder}/{name}',
            neg_category_ids=[other + 1],
            not_exhaustive_category_ids=[FREQUENT],
        )
        images.append(entry)
        annotations += [
            dict(
                id=image_id * 10 + number,
                image_id=image_id,
                category_id=thing.label,
                bbox=[thing.left, thing.top, thing.width, thing.height],
                area=thing.width * thing.height,
                segmentation=[thing.polygon],
            )
            for number, thing in enumerate(things)
        ]
    return dict(
        info=dict(description='invented', version='v1.0', year='2020'),
        licenses=[dict(id=1, name='none', url='')],
        images=images,
        annotations=annotations,
        categories=_categories(annotations),
    )


def _categories(annotations):
    """All categories, with how often each occurs in the annotations."""
    images = {}
    counts = {}
    for annotation in annotations:
        category = annotation['category_id']
        images.setdefault(category, set()).add(annotation['image_id'])
        counts[category] = counts.get(category, 0) + 1
    return [
        dict(
            id=index,
            name=f'category_{index}',
            synset=f'category_{index}.n.01',
            synonyms=[f'category_{index}'],
            image_count=len(images.get(index, ())),
            instance_count=counts.get(index, 0),
            frequency='r' if index == RARE else 'f',
            **{'def': 'invented'},
        )
        for index in range(1, NUM_CATEGORIES + 1)
    ]
