"""A tiny Cityscapes, as its archives and mmdet's converter leave it.

``leftImg8bit/`` and ``gtFine/`` hold images, semantic and instance maps by
city, as mmsegmentation reads them; ``annotations/`` the instances in COCO's
format, as mmdet does.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils
from transfer_data.label_maps import picture, strips

# The ids of the 19 classes, in the order of their train ids.
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23]
THINGS = {
    24: 'person',
    25: 'rider',
    26: 'car',
    27: 'truck',
    28: 'bus',
    31: 'train',
    32: 'motorcycle',
    33: 'bicycle',
}
EGO_VEHICLE = 1  # ignored: train id 255
CITIES = dict(train=['aachen', 'bochum'], val=['frankfurt'])
IMAGES_PER_CITY = 2
WIDTH, HEIGHT = 128, 64


def write_cityscapes(root: Path) -> Path:
    """Write images, maps and annotations below ``root`` and return it.

    Every image holds all 19 classes, an ignored stripe, one object of each
    of the 8 classes with instances, and a crowd of persons. The configs call
    ``root`` ``data/cityscapes``.
    """
    rng = np.random.default_rng(0)
    for split, cities in CITIES.items():
        scenes = {}
        for city in cities:
            for index in range(IMAGES_PER_CITY):
                name = f'{city}_{index:06d}_000019'
                scenes[name] = _scene(rng)
                _write_maps(root, split, name, scenes[name], rng)
        _write_annotations(root, split, scenes)
    return root


def _scene(rng: np.random.Generator) -> np.ndarray:
    """Return instance ids (HEIGHT, WIDTH), uint16: objects before stuff."""
    scene = strips(LABEL_IDS, HEIGHT, WIDTH).astype(np.uint16)
    scene[-HEIGHT // 16 :] = EGO_VEHICLE
    cell = WIDTH // 5
    for place, label in enumerate([*THINGS, 24]):
        row, column = divmod(place, 5)
        side = int(rng.integers(cell * 3 // 5, cell - 2))
        top = row * cell + int(rng.integers(1, cell - side))
        left = column * cell + int(rng.integers(1, cell - side))
        # A crowd has its label as id, an object label * 1000 + number.
        crowd = place == len(THINGS)
        scene[top : top + side, left : left + side] = (
            label if crowd else label * 1000
        )
    return scene


def _write_maps(root, split, name, instance_ids, rng):
    label_ids = np.where(
        instance_ids >= 1000, instance_ids // 1000, instance_ids
    ).astype(np.uint8)
    train_ids = np.full_like(label_ids, 255)
    for train_id, label in enumerate([*LABEL_IDS, *THINGS]):
        train_ids[label_ids == label] = train_id
    place = f'{split}/{name.split("_")[0]}/{name}'
    files = {
        f'leftImg8bit/{place}_leftImg8bit': picture(label_ids, rng),
        f'gtFine/{place}_gtFine_instanceIds': instance_ids,
        f'gtFine/{place}_gtFine_labelIds': label_ids,
        f'gtFine/{place}_gtFine_labelTrainIds': train_ids,
    }
    for stem, pixels in files.items():
        path = root / f'{stem}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def _write_annotations(root, split, scenes):
    """Write what mmdet's ``cityscapes.py`` converter makes of the maps."""
    images, annotations = [], []
    for image_id, (name, instance_ids) in enumerate(scenes.items()):
        city = name.split('_')[0]
        images.append(
            dict(
                id=image_id,
                file_name=f'{city}/{name}_leftImg8bit.png',
                height=HEIGHT,
                width=WIDTH,
                segm_file=f'{city}/{name}_gtFine_labelIds.png',
            )
        )
        for instance_id in np.unique(instance_ids[instance_ids >= 24]):
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=image_id,
                    **_annotation(instance_ids, int(instance_id)),
                )
            )
    categories = [dict(id=i, name=name) for i, name in THINGS.items()]
    path = root / f'annotations/instancesonly_filtered_gtFine_{split}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        images=images, categories=categories, annotations=annotations
    )
    path.write_text(json.dumps(content))


def _annotation(instance_ids, instance_id):
    crowd = instance_id < 1000
    mask = np.asfortranarray(instance_ids == instance_id, dtype=np.uint8)
    encoded = mask_utils.encode(mask)
    return dict(
        iscrowd=int(crowd),
        category_id=instance_id if crowd else instance_id // 1000,
        bbox=mask_utils.toBbox(encoded).tolist(),
        area=int(mask_utils.area(encoded)),
        segmentation=dict(
            size=encoded['size'], counts=encoded['counts'].decode()
        ),
    )
