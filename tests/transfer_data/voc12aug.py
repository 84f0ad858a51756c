"""A tiny VOC 2012 with the additional annotations of SBD.

As the archive of VOC 2012 and mmsegmentation's converter ``voc_aug.py`` leave
it: maps with a palette in ``SegmentationClass``, gray ones in
``SegmentationClassAug``.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from transfer_data.label_maps import picture, strips

CLASSES = 21  # 0 is the background
BORDER = 255  # around every object of VOC's own maps: ignored
WIDTH, HEIGHT = 84, 63
NAMES = dict(
    train=['2007_000032', '2007_000039'],
    val=['2007_000033', '2007_000042'],
    aug=['2008_000002', '2008_000003'],
)


def write_voc12aug(root: Path) -> Path:
    """Write images, label maps and lists below ``root`` and return it.

    Every image holds all 21 classes.
    """
    rng = np.random.default_rng(0)
    lists = root / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    for folder in ('JPEGImages', 'SegmentationClass', 'SegmentationClassAug'):
        (root / folder).mkdir()
    for split, names in NAMES.items():
        (lists / f'{split}.txt').write_text('\n'.join(names) + '\n')
        for name in names:
            label_map = strips(range(CLASSES), HEIGHT, WIDTH)
            image = Image.fromarray(picture(label_map, rng))
            image.save(root / f'JPEGImages/{name}.jpg')
            _write_map(root, split, name, label_map)
    return root


def _write_map(root, split, name, label_map):
    if split == 'aug':
        path = root / f'SegmentationClassAug/{name}.png'
        Image.fromarray(label_map).save(path)
        return
    label_map[[0, -1]] = BORDER
    image = Image.fromarray(label_map)
    colours = np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8)
    image.putpalette(colours.tobytes())
    image.save(root / f'SegmentationClass/{name}.png')
