"""A tiny ADE20K, as the archive ADEChallengeData2016 has it."""

from pathlib import Path

import numpy as np
from PIL import Image
from transfer_data.label_maps import picture, strips

SPLITS = dict(training='train', validation='val')
CLASSES = 150  # 1 ... 150 in the maps; 0 is what has no class
WIDTH, HEIGHT = 80, 60


def write_ade20k(root: Path) -> Path:
    """Write images and label maps below ``root`` and return it.

    The four images of a split hold every class between them, and each holds
    pixels without a class.
    """
    rng = np.random.default_rng(0)
    for folder, split in SPLITS.items():
        for kind in ('images', 'annotations'):
            (root / kind / folder).mkdir(parents=True)
        for index in range(4):
            labels = [0, *range(1 + index, CLASSES + 1, 4)]
            label_map = strips(labels, HEIGHT, WIDTH)
            name = f'{folder}/ADE_{split}_{index + 1:08d}'
            image = Image.fromarray(picture(label_map, rng))
            image.save(root / f'images/{name}.jpg')
            Image.fromarray(label_map).save(root / f'annotations/{name}.png')
    return root
