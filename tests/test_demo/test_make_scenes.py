"""Scenes on disk, read back by the libraries that will read them."""

import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES
from PIL import Image

from demo import DATA_FILE
from demo.make_scenes import encode_mask, main, write_scenes
from demo.scenes import compose_scene
from mmunimoco.datasets.npz_images import read_npz_split

COUNTS = dict(train=5, val=4)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp('scenes') / 'a', COUNTS, 7)


@pytest.fixture(scope='module')
def composed():
    """Training scenes show training images, validation scenes test images."""
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


def test_bytes_depend_on_seed_and_scene_alone(root, tmp_path):
    seen = []
    again = write_scenes(tmp_path / 'b', COUNTS, 7, progress=seen.append)
    first = _digests(root)
    # Four files for each scene, annotations and image list for each split.
    assert len(first) == 4 * 9 + 2 * 2
    assert _digests(again) == first
    assert seen == pytest.approx([n / 9 for n in range(1, 10)])
    more = _digests(write_scenes(tmp_path / 'm', dict(train=7), 7))
    other = _digests(write_scenes(tmp_path / 'o', dict(train=5), 8))
    for name, digest in first.items():
        if name.startswith(('images/train', 'masks/train')):
            assert more[name] == digest != other[name]


@pytest.mark.parametrize('name', COUNTS)
def test_coco_annotations_are_the_drawn_masks(root, composed, name):
    coco = pytest.importorskip('pycocotools.coco')
    api = coco.COCO(str(root / 'annotations' / f'instances_{name}.json'))
    names = [c['name'] for c in api.loadCats(api.getCatIds())]
    assert names == list(FASHIONMNIST_CATEGORITES)
    for image_id, scene in zip(api.getImgIds(), composed[name], strict=True):
        (info,) = api.loadImgs(image_id)
        for kind, pixels in (
            ('images', scene.image),
            ('masks', scene.semantic),
        ):
            path = root / kind / name / info['file_name']
            assert np.array_equal(np.asarray(Image.open(path)), pixels)
        annotations = api.loadAnns(api.getAnnIds(image_id))
        for found, item in zip(annotations, scene.objects, strict=True):
            assert np.array_equal(api.annToMask(found), item.mask)
            assert found['bbox'] == list(item.box)
            assert found['area'] == item.mask.sum()
            assert found['category_id'] == item.label + 1


@pytest.mark.parametrize(
    ('name', 'listed'), [('train', 'trainval'), ('val', 'test')]
)
def test_voc_counts_from_one(root, composed, name, listed):
    voc = root / 'VOCdevkit' / 'VOC2007'
    names = (voc / f'ImageSets/Main/{listed}.txt').read_text().split()
    for image, scene in zip(names, composed[name], strict=True):
        tree = ElementTree.parse(voc / 'Annotations' / f'{image}.xml')
        file = voc / 'JPEGImages' / tree.findtext('filename')
        pixels = np.asarray(Image.open(file)).astype(int)
        assert np.abs(pixels - scene.image).mean() < 8
        elements = tree.findall('object')
        for element, item in zip(elements, scene.objects, strict=True):
            assert (
                element.findtext('name')
                == FASHIONMNIST_CATEGORITES[item.label]
            )
            corners = {e.tag: int(e.text) for e in element.find('bndbox')}
            rows, columns = np.nonzero(item.mask)
            assert corners == dict(
                xmin=columns.min() + 1,
                ymin=rows.min() + 1,
                xmax=columns.max() + 1,
                ymax=rows.max() + 1,
            )


@pytest.mark.parametrize('first, last', [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_run_lengths_decode_to_the_mask(first, last):
    mask = np.array([[first, 1, 1], [0, 0, last]], bool)
    encoded = encode_mask(mask)
    values = np.arange(len(encoded['counts'])) % 2 == 1
    flat = np.repeat(values, encoded['counts'])
    assert encoded['size'] == [2, 3]
    assert np.array_equal(flat.reshape(3, 2).T, mask)


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def stop(done):
        raise KeyboardInterrupt

    (tmp_path / 'empty').mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / 'empty', COUNTS, progress=stop)
    assert not any((tmp_path / 'empty').iterdir())
    write_scenes(tmp_path / 'empty', dict(val=1))
    assert len(_digests(tmp_path / 'empty')) == 6
    assert [p.name for p in tmp_path.iterdir()] == ['empty']


def test_command_line(tmp_path, capsys):
    out = tmp_path / 'scenes'
    options = ['--train', '2', '--val', '1', '--size', '96']
    assert main([str(out), *options]) == 0
    assert '2 training and 1 validation scenes' in capsys.readouterr().out
    text = (out / 'annotations/instances_train.json').read_text()
    assert [i['height'] for i in json.loads(text)['images']] == [96, 96]
    before = _digests(out)
    assert main([str(out), *options]) == 1
    assert 'not empty' in capsys.readouterr().err
    assert _digests(out) == before
    for option, message in (
        ('--size=20', '64'),
        ('--train=0', 'at least one train scene is needed, got 0'),
    ):
        assert main([str(tmp_path / 'x'), option]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / 'x').exists()
