"""Scenes on disk, read back by the libraries that will read them."""

import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from demo import DATA_FILE
from demo.scenes import compose_scene
from demo.scenes_files import CLASSES, encode_mask, write_scenes
from mmunimoco.datasets.npz_images import read_npz_split

COUNTS = dict(train=6, val=4)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp('scenes') / 'a', COUNTS, 7)


@pytest.fixture(scope='module')
def composed():
    return {
        name: [
            compose_scene(read_npz_split(DATA_FILE, split), split, i, seed=7)
            for i in range(COUNTS[name])
        ]
        for name, split in (('train', 'train'), ('val', 'test'))
    }


def _digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_same_arguments_same_bytes_and_progress(root, tmp_path):
    seen = []
    again = write_scenes(tmp_path / 'b', COUNTS, 7, progress=seen.append)
    first = _digests(root)
    # Four files a scene, an annotation and a list a split.
    assert len(first) == 4 * 10 + 2 * 2
    assert _digests(again) == first
    assert seen == pytest.approx([n / 10 for n in range(1, 11)])
    other = _digests(write_scenes(tmp_path / 'c', COUNTS, 8))
    assert other.keys() == first.keys()
    same = {name for name in first if other[name] == first[name]}
    assert all(name.startswith('VOCdevkit/VOC2007/Image') for name in same)


def test_more_scenes_begin_with_the_same_ones(root, tmp_path):
    more = _digests(write_scenes(tmp_path / 'm', dict(train=8), 7))
    for name, digest in _digests(root).items():
        if name.startswith(('images/train', 'masks/train')):
            assert more[name] == digest


@pytest.mark.parametrize('name', COUNTS)
def test_coco_annotations_are_the_drawn_masks(root, composed, name):
    coco = pytest.importorskip('pycocotools.coco')
    api = coco.COCO(str(root / 'annotations' / f'instances_{name}.json'))
    assert len(api.getImgIds()) == COUNTS[name]
    names = [c['name'] for c in api.loadCats(api.getCatIds())]
    assert names == list(CLASSES)
    for image_id, scene in zip(api.getImgIds(), composed[name], strict=True):
        (info,) = api.loadImgs(image_id)
        path = root / 'images' / name / info['file_name']
        assert np.array_equal(np.asarray(Image.open(path)), scene.image)
        annotations = api.loadAnns(api.getAnnIds(image_id))
        assert len(annotations) == len(scene.objects)
        for found, item in zip(annotations, scene.objects, strict=True):
            assert np.array_equal(api.annToMask(found), item.mask)
            assert found['bbox'] == list(item.box)
            assert found['area'] == item.mask.sum()
            assert found['category_id'] == item.label + 1


@pytest.mark.parametrize('name', COUNTS)
def test_masks_of_classes_are_exact(root, composed, name):
    paths = sorted((root / 'masks' / name).iterdir())
    assert len(paths) == COUNTS[name]
    for path, scene in zip(paths, composed[name], strict=True):
        with Image.open(path) as picture:
            assert picture.mode == 'L'
            assert np.array_equal(np.asarray(picture), scene.semantic)


@pytest.mark.parametrize(
    ('name', 'listed'), [('train', 'trainval'), ('val', 'test')]
)
def test_voc_counts_from_one(root, composed, name, listed):
    voc = root / 'VOCdevkit' / 'VOC2007'
    names = (voc / f'ImageSets/Main/{listed}.txt').read_text().split()
    assert len(names) == COUNTS[name]
    for image, scene in zip(names, composed[name], strict=True):
        tree = ElementTree.parse(voc / 'Annotations' / f'{image}.xml')
        file = voc / 'JPEGImages' / tree.findtext('filename')
        pixels = np.asarray(Image.open(file)).astype(int)
        assert np.abs(pixels - scene.image).mean() < 8
        objects = tree.findall('object')
        assert len(objects) == len(scene.objects)
        for element, item in zip(objects, scene.objects, strict=True):
            assert element.findtext('name') == CLASSES[item.label]
            corners = {e.tag: int(e.text) for e in element.find('bndbox')}
            rows, columns = np.nonzero(item.mask)
            assert corners == dict(
                xmin=columns.min() + 1,
                ymin=rows.min() + 1,
                xmax=columns.max() + 1,
                ymax=rows.max() + 1,
            )


def test_splits_show_images_of_their_own_split(root):
    for name, split in (('train', 'train'), ('val', 'test')):
        path = root / 'annotations' / f'instances_{name}.json'
        annotations = json.loads(path.read_text())['annotations']
        used = {a['source'] for a in annotations}
        images = read_npz_split(DATA_FILE, split)
        known = dict(zip(images.indices, images.labels, strict=True))
        assert used <= known.keys()
        for a in annotations:
            assert known[a['source']] == a['category_id'] - 1


@pytest.mark.parametrize(
    'mask',
    [
        np.zeros((3, 2), bool),
        np.ones((3, 2), bool),
        np.array([[0, 1, 1], [0, 0, 1]], bool),
        np.array([[1, 1, 0], [1, 0, 0]], bool),
    ],
)
def test_run_lengths_decode_to_the_mask(mask):
    encoded = encode_mask(mask)
    assert encoded['size'] == list(mask.shape)
    values = np.arange(len(encoded['counts'])) % 2 == 1
    flat = np.repeat(values, encoded['counts'])
    assert np.array_equal(flat.reshape(mask.shape[::-1]).T, mask)


def test_nothing_is_overwritten_and_nothing_half_done_stays(tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'thesis.txt').touch()
    with pytest.raises(ValueError, match='not empty'):
        write_scenes(tmp_path / 'full', COUNTS)

    def stop(done):
        raise KeyboardInterrupt

    (tmp_path / 'empty').mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / 'empty', COUNTS, progress=stop)
    assert not any((tmp_path / 'empty').iterdir())
    write_scenes(tmp_path / 'empty', dict(val=1))
    assert len(_digests(tmp_path / 'empty')) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 'full']


@pytest.mark.parametrize(
    ('counts', 'message'),
    [(dict(train=0), 'train scene is needed'), (dict(test=1), "got 'test'")],
)
def test_wrong_counts_are_told(tmp_path, counts, message):
    with pytest.raises(ValueError, match=message):
        write_scenes(tmp_path / 'x', counts)
