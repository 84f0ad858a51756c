"""Fixtures of the dataset tests."""

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """Nested parts (the transforms of MultiView) build as in a Runner."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def save_image(path, seed):
    """A small picture of smooth noise, JPEG or PNG after its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(noise).resize((24, 20)).save(path)


@pytest.fixture(scope='session')
def imagenet_folder(tmp_path_factory):
    """Image files in ImageNet's layout: classes of 10, 7, 4 and 1 images."""
    root = tmp_path_factory.mktemp('imagenet') / 'train'
    sizes = {
        'n01440764': 10,
        'n01443537': 7,
        'n01484850': 4,
        'n01491361': 1,
    }
    for c, (wnid, size) in enumerate(sizes.items()):
        for i in range(size):
            extension = 'png' if i == 3 else 'JPEG'
            save_image(root / wnid / f'{wnid}_{i}.{extension}', 100 * c + i)
    return root


@pytest.fixture(scope='session')
def unlabeled_folder(tmp_path_factory):
    """Image files without classes, some in a sub-folder."""
    root = tmp_path_factory.mktemp('unlabeled')
    for i in range(5):
        save_image(root / f'web_{i}.jpg', 1000 + i)
        save_image(root / 'phone' / f'IMG_{i}.png', 2000 + i)
    return root
