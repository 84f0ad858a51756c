"""Write composed scenes as COCO, as VOC and as semantic masks."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES
from PIL import Image

from mmunimoco.datasets.npz_images import read_npz_split

from . import DATA_FILE
from .scenes import Scene, compose_scene

CLASSES = FASHIONMNIST_CATEGORITES
# Name -> split of the images that it uses, image list of VOC.
SPLITS = {'train': ('train', 'trainval'), 'val': ('test', 'test')}
_VOC = 'VOCdevkit/VOC2007'


def write_scenes(
    root: Path,
    counts: dict[str, int],
    seed: int = 0,
    size: int = 128,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Compose scenes and write them in three formats.

    COCO is in ``annotations/instances_{train,val}.json`` and
    ``images/{train,val}``; ``masks/{train,val}`` holds the class of each
    pixel (0 is background) of the same images; VOC, with JPEG images, is in
    ``VOCdevkit/VOC2007``. Scenes of ``train`` use training images alone,
    those of ``val`` test images alone. The same arguments give the same
    bytes.

    Args:
        root (Path): Folder to write; must not exist or be empty.
        counts (dict[str, int]): Number of scenes of 'train' and of 'val'.
        seed (int): Random seed. Defaults to 0.
        size (int): Height and width in pixels. Defaults to 128.
        progress (Callable, optional): Called with the fraction done.

    Returns:
        Path: ``root``.

    Raises:
        ValueError: If a split is unknown, a count is below 1, or the folder
            is not empty.
    """
    _check(root, counts)
    # An interrupted run must leave nothing that looks complete.
    part = root.with_name(f'{root.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    done, total = 0, sum(counts.values())
    for name, count in counts.items():
        writer = _SplitWriter(part, name)
        source = read_npz_split(DATA_FILE, SPLITS[name][0])
        for index in range(count):
            writer.add(
                compose_scene(source, SPLITS[name][0], index, seed, size)
            )
            done += 1
            if progress is not None:
                progress(done / total)
        writer.close()
    if root.exists():
        root.rmdir()
    return part.rename(root)


def _check(root: Path, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if name not in SPLITS:
            raise ValueError(f'split must be one of {[*SPLITS]}, got {name!r}')
        if count < 1:
            raise ValueError(
                f'at least one {name} scene is needed, got {count}'
            )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(
            f'{root} exists and is not empty: name another folder, or remove '
            'it first'
        )


class _SplitWriter:
    """Writes the scenes of one split one by one."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.voc = root / _VOC
        self.names = []
        self.images, self.annotations = [], []
        for folder in (
            *(root / kind / name for kind in ('images', 'masks')),
            root / 'annotations',
            *(self.voc / part for part in ('Annotations', 'JPEGImages')),
            self.voc / 'ImageSets' / 'Main',
        ):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, scene: Scene) -> None:
        name = f'{self.name}_{len(self.images):05d}'
        self.names.append(name)
        image = Image.fromarray(scene.image)
        image.save(self.root / 'images' / self.name / f'{name}.png')
        Image.fromarray(scene.semantic).save(
            self.root / 'masks' / self.name / f'{name}.png'
        )
        image.save(self.voc / 'JPEGImages' / f'{name}.jpg', quality=95)
        tree = ElementTree.ElementTree(_voc_xml(scene, name))
        ElementTree.indent(tree)
        tree.write(self.voc / 'Annotations' / f'{name}.xml', encoding='utf-8')
        self._add_coco(scene, name)

    def close(self) -> None:
        content = dict(
            info=dict(description='Scenes composed from Fashion-MNIST'),
            images=self.images,
            annotations=self.annotations,
            categories=[
                dict(id=i, name=n) for i, n in enumerate(CLASSES, start=1)
            ],
        )
        path = self.root / 'annotations' / f'instances_{self.name}.json'
        path.write_text(json.dumps(content) + '\n')
        lists = self.voc / 'ImageSets' / 'Main'
        text = ''.join(f'{name}\n' for name in self.names)
        (lists / f'{SPLITS[self.name][1]}.txt').write_text(text)

    def _add_coco(self, scene: Scene, name: str) -> None:
        height, width = scene.image.shape[:2]
        image = dict(file_name=f'{name}.png', height=height, width=width)
        self.images.append(dict(id=len(self.images) + 1, **image))
        for item in scene.objects:
            annotation = dict(
                image_id=len(self.images),
                category_id=item.label + 1,
                bbox=list(item.box),
                area=int(item.mask.sum()),
                segmentation=encode_mask(item.mask),
                iscrowd=0,
                # Index in the original file; not part of COCO.
                source=item.source,
            )
            number = len(self.annotations) + 1
            self.annotations.append(dict(id=number, **annotation))


def encode_mask(mask: np.ndarray) -> dict:
    """Encode an (H, W) bool mask as COCO's uncompressed run lengths.

    Returns:
        dict: ``size`` and ``counts``, the lengths of alternating runs of
        zeros and ones, column by column, starting with zeros.
    """
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.append(changes, mask.size)
    counts = np.diff(ends, prepend=0)
    # COCO does not write an empty run at the end.
    counts = counts if counts[-1] else counts[:-1]
    return dict(size=list(mask.shape), counts=counts.tolist())


def _voc_xml(scene: Scene, name: str) -> ElementTree.Element:
    root = ElementTree.Element('annotation')
    height, width, depth = scene.image.shape
    _add_texts(root, filename=f'{name}.jpg')
    size = ElementTree.SubElement(root, 'size')
    _add_texts(size, width=width, height=height, depth=depth)
    for item in scene.objects:
        element = ElementTree.SubElement(root, 'object')
        _add_texts(element, name=CLASSES[item.label], difficult=0)
        box = ElementTree.SubElement(element, 'bndbox')
        x, y, w, h = item.box
        # VOC counts pixels from 1, and the last one lies inside.
        _add_texts(box, xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)
    return root


def _add_texts(parent: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = str(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m demo.make_scenes', description=__doc__
    )
    parser.add_argument(
        'out', type=Path, help='folder to write; must be new or empty'
    )
    parser.add_argument(
        '--train', type=int, default=400, help='training scenes'
    )
    parser.add_argument(
        '--val', type=int, default=200, help='validation scenes'
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed')
    parser.add_argument(
        '--size', type=int, default=128, help='height and width in pixels'
    )
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f'--seed must be 0 or more, got {args.seed}')
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    counts = dict(train=args.train, val=args.val)
    try:
        write_scenes(args.out, counts, seed=args.seed, size=args.size)
    except ValueError as error:
        print(f'make_scenes: {error}', file=sys.stderr)
        return 1
    print(
        f'{args.train} training and {args.val} validation scenes: {args.out}'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
