"""A tiny LVIS v1: its annotations beside the images of COCO.

``annotations/lvis_v1_{train,val}.json`` name the images by ``coco_url``
alone; some of LVIS's validation images are training images of COCO.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from transfer_data.coco import draw_boxes, image_entry

NUM_CATEGORIES = 1203
RARE, FREQUENT = 1, 1203  # ids that every image shows, beside another one
SIZE = (96, 64)  # width, height
# Folder of each image. One validation image is a training image of COCO.
FOLDERS = dict(train=['train2017'] * 4, val=['val2017', 'train2017'])


def write_lvis(root: Path) -> Path:
    """Write images and annotations below ``root`` (``data/lvis_v1``).

    Every image shows three objects, and says which of the other categories
    are not in it and which are not annotated exhaustively. Returns ``root``.
    """
    for name in ('annotations', 'train2017', 'val2017'):
        (root / name).mkdir(parents=True)
    first = 1
    for split, folders in FOLDERS.items():
        content = _write_split(root, folders, first)
        path = root / f'annotations/lvis_v1_{split}.json'
        path.write_text(json.dumps(content))
        first += len(folders)
    return root


def _write_split(root, folders, first):
    """Write an image into each folder; return the content of the JSON."""
    rng = np.random.default_rng(first)
    images, annotations = [], []
    for image_id, folder in enumerate(folders, start=first):
        other = int(rng.integers(RARE + 1, FREQUENT - 2))
        image, boxes = draw_boxes(rng, SIZE, [RARE, other, FREQUENT])
        name = f'{image_id:012d}.jpg'
        image.save(root / folder / name)
        entry = image_entry(image_id, name, SIZE)
        del entry['file_name']  # LVIS v1 has none
        entry.update(
            coco_url=f'http://images.cocodataset.org/{folder}/{name}',
            neg_category_ids=[other + 1],
            not_exhaustive_category_ids=[FREQUENT],
        )
        images.append(entry)
        annotations += [
            box.annotation(image_id, number)
            for number, box in enumerate(boxes)
        ]
    return dict(
        info=dict(description='invented', version='v1.0', year='2020'),
        licenses=[dict(id=1, name='none', url='')],
        images=images,
        annotations=annotations,
        categories=_categories(annotations),
    )


def _categories(annotations):
    """Return all categories with their counts in the annotations."""
    counts = Counter(a['category_id'] for a in annotations)
    return [
        dict(
            id=index,
            name=f'category_{index}',
            synset=f'category_{index}.n.01',
            synonyms=[f'category_{index}'],
            image_count=counts[index],  # no image shows a category twice
            instance_count=counts[index],
            frequency='r' if index == RARE else 'f',
            **{'def': 'invented'},
        )
        for index in range(1, NUM_CATEGORIES + 1)
    ]
