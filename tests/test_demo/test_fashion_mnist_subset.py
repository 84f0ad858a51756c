"""The committed subset of Fashion-MNIST and the tool that wrote it."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES

from demo import DATA_FILE
from demo import make_fashion_mnist_subset as tool
from mmunimoco.datasets.npz_images import read_npz_split

# SHA-256 of the bytes of images and labels (int64), first 32 digits.
DIGESTS = {
    'train': '72f721b5094227a699c596adec78bcf1',
    'test': '788913f16e63dd2807d7a60f72996ed9',
}


@pytest.mark.parametrize('split, count', [('train', 6000), ('test', 2000)])
def test_committed_subset(split, count):
    images, labels, indices, classes = read_npz_split(DATA_FILE, split)
    assert images.shape == (count, 28, 28)
    assert (np.bincount(labels) == count // 10).all()
    assert (np.diff(indices) > 0).all()
    assert tuple(classes) == FASHIONMNIST_CATEGORITES
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest.startswith(DIGESTS[split])


def test_licence_and_checksum_are_stated():
    data = Path(DATA_FILE)
    text = data.with_name('README.md').read_text()
    assert 'Zalando SE' in text and 'Permission is hereby granted' in text
    assert hashlib.sha256(data.read_bytes()).hexdigest() in text


def _write_idx(folder, rng, name, count):
    labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    with gzip.open(folder / f'{name}-labels-idx1-ubyte.gz', 'wb') as file:
        file.write(struct.pack('>II', 0x801, count) + labels.tobytes())
    with open(folder / f'{name}-images-idx3-ubyte', 'wb') as file:
        file.write(
            struct.pack('>IIII', 0x803, count, 28, 28) + images.tobytes()
        )
    return images, labels


def test_subset_of_idx_files(tmp_path, monkeypatch, capsys):
    splits = {'train': ('train', 3), 'test': ('t10k', 1)}
    monkeypatch.setattr(tool, 'SPLITS', splits)
    rng = np.random.default_rng(0)
    images, labels = _write_idx(tmp_path, rng, 'train', 80)
    out = tmp_path / 'subset.npz'
    command = [str(tmp_path), '--out', str(out)]
    assert tool.main(command) == 1
    assert 't10k-images' in capsys.readouterr().err
    _write_idx(tmp_path, rng, 't10k', 20)
    assert tool.main(command) == 0
    kept = read_npz_split(str(out), 'train')
    want = sorted(
        i for c in range(10) for i in [*np.flatnonzero(labels == c)][:3]
    )
    assert kept.indices.tolist() == want
    np.testing.assert_array_equal(kept.images, images[want])
    np.testing.assert_array_equal(kept.labels, labels[want])
    content = out.read_bytes()
    assert tool.main(command) == 0
    assert out.read_bytes() == content
    splits['train'] = ('train', 9)
    assert tool.main(command) == 1
    assert 'fewer than 9 images' in capsys.readouterr().err
