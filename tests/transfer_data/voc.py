"""A tiny VOC 2007 and 2012, as their archives unpack into ``VOCdevkit/``.

Of each year ``JPEGImages/``, ``Annotations/`` and ``ImageSets/Main/``. The
test images are those of 2007 alone: of 2012 they have no annotations.
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from transfer_data.coco import Thing, draw_things

CLASSES = [
    'aeroplane',
    'bicycle',
    'bird',
    'boat',
    'bottle',
    'bus',
    'car',
    'cat',
    'chair',
    'cow',
    'diningtable',
    'dog',
    'horse',
    'motorbike',
    'person',
    'pottedplant',
    'sheep',
    'sofa',
    'train',
    'tvmonitor',
]
SPLITS = dict(
    VOC2007=('train', 'val', 'test'),
    VOC2012=('train', 'val'),
)
# What the files of a year are called, by their number.
NAMES = dict(VOC2007='{:06d}', VOC2012='2008_{:06d}')


def write_voc(
    root: Path, size: tuple[int, int] = (96, 64), images_per_split: int = 2
) -> Path:
    """Write both years below ``root`` and return it.

    Every image shows two objects and one marked as difficult.

    Args:
        root (Path): The folder that configs call ``data/VOCdevkit``.
        size (tuple[int, int]): Width and height of the images. Defaults to
            (96, 64).
        images_per_split (int): Images of train, of val and of test in each
            year. Defaults to 2.

    Returns:
        Path: ``root``.
    """
    root = Path(root)
    for year, splits in SPLITS.items():
        folder = root / year
        for part in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
            (folder / part).mkdir(parents=True)
        rng = np.random.default_rng(int(year[3:]))
        number, names = 1, {}
        for split in splits:
            names[split] = []
            for _ in range(images_per_split):
                name = NAMES[year].format(number)
                _write_image(folder, name, size, rng)
                names[split].append(name)
                number += 1
        names['trainval'] = names['train'] + names['val']
        for split, lines in names.items():
            path = folder / f'ImageSets/Main/{split}.txt'
            path.write_text('\n'.join(lines) + '\n')
    return root


def _write_image(folder, name, size, rng):
    labels = rng.choice(len(CLASSES), 3, replace=False).tolist()
    image, things = draw_things(rng, size, labels)
    image.save(folder / f'JPEGImages/{name}.jpg')
    root = _element('annotation')
    _element('folder', root, folder.name)
    _element('filename', root, f'{name}.jpg')
    source = _element('source', root)
    _element('database', source, f'The {folder.name} Database')
    _element('annotation', source, f'PASCAL {folder.name}')
    _element('image', source, 'invented')
    _add_size(root, size)
    _element('segmented', root, 0)
    for number, thing in enumerate(things):
        _add_object(root, thing, difficult=number == 2)
    path = folder / f'Annotations/{name}.xml'
    ElementTree.ElementTree(root).write(path)


def _element(tag, parent=None, text=None):
    if parent is None:
        return ElementTree.Element(tag)
    element = ElementTree.SubElement(parent, tag)
    element.text = None if text is None else str(text)
    return element


def _add_size(root, size):
    element = _element('size', root)
    _element('width', element, size[0])
    _element('height', element, size[1])
    _element('depth', element, 3)


def _add_object(root, thing: Thing, difficult):
    element = _element('object', root)
    _element('name', element, CLASSES[thing.label])
    _element('pose', element, 'Unspecified')
    _element('truncated', element, 0)
    _element('difficult', element, int(difficult))
    box = _element('bndbox', element)
    # Both corners belong to the object, and the first pixel is number 1.
    _element('xmin', box, thing.left + 1)
    _element('ymin', box, thing.top + 1)
    _element('xmax', box, thing.left + thing.width)
    _element('ymax', box, thing.top + thing.height)
