"""A tiny VOC 2007 and 2012, as their archives unpack into ``VOCdevkit/``.

Each year has ``JPEGImages/``, ``Annotations/`` and ``ImageSets/Main/``. Test
images have annotations in 2007 only.
"""

from pathlib import Path

import numpy as np
from transfer_data.coco import draw_boxes

CLASSES = [
    *('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat'),
    *('chair', 'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person'),
    *('pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor'),
]
SPLITS = dict(VOC2007=('train', 'val', 'test'), VOC2012=('train', 'val'))
# File names of a year by the number of the image.
NAMES = dict(VOC2007='{:06d}', VOC2012='2008_{:06d}')
SIZE = (96, 64)  # width, height
IMAGES_PER_SPLIT = 2
# Both corners belong to the object, and the first pixel is number 1.
OBJECT = """<object>
<name>{name}</name><pose>Unspecified</pose><truncated>0</truncated>
<difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin>
<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>
</object>"""
IMAGE = """<annotation>
<folder>{year}</folder><filename>{name}.jpg</filename>
<source><database>The {year} Database</database>
<annotation>PASCAL {year}</annotation><image>invented</image></source>
<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>
<segmented>0</segmented>{objects}</annotation>"""


def write_voc(root: Path) -> Path:
    """Write both years below ``root`` (``data/VOCdevkit``) and return it.

    Every image shows two objects and one marked as difficult.
    """
    for year, splits in SPLITS.items():
        folder = root / year
        for part in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
            (folder / part).mkdir(parents=True)
        rng = np.random.default_rng(int(year[3:]))
        names = {}
        for place, split in enumerate(splits):
            first = 1 + place * IMAGES_PER_SPLIT
            names[split] = [
                NAMES[year].format(first + i) for i in range(IMAGES_PER_SPLIT)
            ]
            for name in names[split]:
                _write_image(folder, name, rng)
        names['trainval'] = names['train'] + names['val']
        for split, lines in names.items():
            path = folder / f'ImageSets/Main/{split}.txt'
            path.write_text('\n'.join(lines) + '\n')
    return root


def _write_image(folder, name, rng):
    labels = rng.choice(len(CLASSES), 3, replace=False).tolist()
    image, boxes = draw_boxes(rng, SIZE, labels)
    image.save(folder / f'JPEGImages/{name}.jpg')
    objects = ''.join(
        OBJECT.format(
            name=CLASSES[box.label],
            difficult=int(number == 2),
            xmin=box.left + 1,
            ymin=box.top + 1,
            xmax=box.left + box.width,
            ymax=box.top + box.height,
        )
        for number, box in enumerate(boxes)
    )
    text = IMAGE.format(
        year=folder.name, name=name, size=SIZE, objects=objects
    )
    (folder / f'Annotations/{name}.xml').write_text(text)
