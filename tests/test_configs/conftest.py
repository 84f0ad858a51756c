"""Tiny copies of the data sets, in the formats that they have on disk."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.datasets import CIFAR10, CIFAR100
from PIL import Image

IMAGES_PER_CLASS = 8


def _pixels(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def _write_imagenet(root: Path) -> str:
    """Write train/, val/ and meta/ with classes 0, 1 and 999."""
    rng = np.random.default_rng(0)
    (root / 'meta').mkdir(parents=True)
    for split in ('train', 'val'):
        lines = []
        for label in (0, 1, 999):
            folder = root / split / f'n{label:08d}'
            folder.mkdir(parents=True)
            for index in range(IMAGES_PER_CLASS):
                path = folder / f'{folder.name}_{index}.JPEG'
                Image.fromarray(_pixels(rng, 40, 48, 3)).save(path)
                lines.append(f'{folder.name}/{path.name} {label}')
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    return str(root)


def _write_cifar(root: Path, dataset: type, key: str, classes: int) -> str:
    """Write the pickles of the Python version, ``key`` naming the labels."""
    rng = np.random.default_rng(0)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    for name, _ in dataset.train_list + dataset.test_list:
        labels = [i % classes for i in range(20)]
        batch = {'data': _pixels(rng, len(labels), 3072), key: labels}
        (folder / name).write_bytes(pickle.dumps(batch))
    names = [str(label) for label in range(classes)]
    meta = {dataset.meta['key']: names}
    (folder / dataset.meta['filename']).write_bytes(pickle.dumps(meta))
    return str(root)


@pytest.fixture(scope='session')
def _written(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    return {
        'ImageNet': _write_imagenet(root / 'imagenet'),
        'CIFAR10': _write_cifar(root / 'cifar10', CIFAR10, 'labels', 10),
        'CIFAR100': _write_cifar(
            root / 'cifar100', CIFAR100, 'fine_labels', 100
        ),
    }


@pytest.fixture
def data_roots(_written, monkeypatch):
    """Folder of each tiny data set by the type of its dataset."""
    for dataset in (CIFAR10, CIFAR100):
        # The real checksums cannot hold for invented images.
        for name in ('train_list', 'test_list'):
            files = [[file, None] for file, _ in getattr(dataset, name)]
            monkeypatch.setattr(dataset, name, files)
        monkeypatch.setattr(dataset, 'meta', {**dataset.meta, 'md5': None})
    return _written
