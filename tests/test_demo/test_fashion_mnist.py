"""The committed subset of Fashion-MNIST and the dataset over it."""

import gzip
import hashlib
import os.path as osp
import struct

import numpy as np
import pytest
from mmengine.dataset import default_collate
from mmpretrain.registry import DATASETS, TRANSFORMS
from torch.utils.data import DataLoader

from demo import fashion_mnist_archive as archive
from demo.fashion_mnist import DemoFashionMNIST

# SHA-256 of the bytes of images and labels (int64), first 32 digits.
DIGESTS = {
    'train': '72f721b5094227a699c596adec78bcf1',
    'test': '788913f16e63dd2807d7a60f72996ed9',
}
TWO_VIEWS = [
    dict(
        type='MultiView',
        num_views=2,
        transforms=[
            [
                dict(type='RandomResizedCrop', scale=28),
                dict(
                    type='RandomApply',
                    transforms=[
                        dict(
                            type='ColorJitter',
                            brightness=0.4,
                            contrast=0.4,
                            saturation=0.4,
                            hue=0.1,
                        )
                    ],
                    prob=1.0,
                ),
                dict(
                    type='RandomGrayscale',
                    prob=1.0,
                    keep_channels=True,
                    channel_weights=(0.114, 0.587, 0.2989),
                ),
                dict(type='RandomFlip', prob=0.5),
            ]
        ],
    ),
    dict(type='PackInputs'),
]


@pytest.mark.parametrize('split, count', [('train', 6000), ('test', 2000)])
def test_committed_subset(split, count):
    images, labels, indices = archive.read_archive(split)
    assert images.shape == (count, 28, 28) and images.dtype == np.uint8
    assert labels.dtype == indices.dtype == np.int64
    assert (np.bincount(labels) == count // 10).all()
    assert (np.diff(indices) > 0).all()
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest.startswith(DIGESTS[split])


def test_archive_is_small_and_licensed():
    assert osp.getsize(archive.DEFAULT_ARCHIVE) < 3.1e6
    with open(
        osp.join(osp.dirname(archive.DEFAULT_ARCHIVE), 'README.md')
    ) as note:
        text = note.read()
    assert 'Zalando SE' in text and 'Permission is hereby granted' in text
    with open(archive.DEFAULT_ARCHIVE, 'rb') as file:
        assert hashlib.sha256(file.read()).hexdigest() in text


def test_dataset_by_registry():
    dataset = DATASETS.build(dict(type='mmpretrain.DemoFashionMNIST'))
    assert len(dataset) == 6000
    assert dataset.CLASSES[5] == 'Sandal'
    sample = dataset[7]
    images, labels, indices = archive.read_archive('train')
    assert sample['img'].shape == (28, 28, 3)
    assert sample['img'].dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(sample['img'][..., channel], images[7])
    assert sample['gt_label'] == labels[7]
    assert sample['img_path'] == f'train_{indices[7]:05d}.png'
    assert sample['sample_idx'] == 7
    assert 'Split: \ttrain' in repr(dataset)


def test_one_channel_and_indices():
    dataset = DemoFashionMNIST(split='test', channels=1, indices=25)
    assert len(dataset) == 25
    assert dataset[0]['img'].shape == (28, 28)


def test_two_views_through_a_loader():
    dataset = DemoFashionMNIST(pipeline=TWO_VIEWS, indices=16)
    batch = next(
        iter(DataLoader(dataset, batch_size=8, collate_fn=default_collate))
    )
    assert [tuple(view.shape) for view in batch['inputs']] == [
        (8, 3, 28, 28)
    ] * 2
    want = archive.read_archive('train').labels[:8].tolist()
    assert [int(s.gt_label) for s in batch['data_samples']] == want


def test_packed_gray_image():
    dataset = DemoFashionMNIST(
        channels=1, indices=1, pipeline=[TRANSFORMS.build(TWO_VIEWS[-1])]
    )
    assert dataset[0]['inputs'].shape == (1, 28, 28)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="split must be.*'val'"):
        DemoFashionMNIST(split='val')
    with pytest.raises(ValueError, match='channels must be 1 or 3, got 2'):
        DemoFashionMNIST(channels=2)
    with pytest.raises(FileNotFoundError, match='gone.npz'):
        DemoFashionMNIST(archive='gone.npz', data_root=str(tmp_path))


@pytest.fixture(scope='module')
def committed():
    with open(archive.DEFAULT_ARCHIVE, 'rb') as file:
        return file.read()


@pytest.mark.parametrize('fault', ['cut', 'altered', 'text', 'empty'])
def test_damaged_archive(tmp_path, committed, fault):
    middle = len(committed) // 3
    content = {
        'cut': committed[:middle],
        'altered': committed[:middle]
        + bytes(b ^ 255 for b in committed[middle : middle + 64])
        + committed[middle + 64 :],
        'text': b'no archive at all',
        'empty': b'',
    }[fault]
    path = tmp_path / 'damaged.npz'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='damaged.npz.*damaged or no'):
        DemoFashionMNIST(archive=str(path))


def _tiny(labels, images=None):
    labels = np.asarray(labels, np.int64)
    if images is None:
        images = np.zeros((len(labels), 28, 28), np.uint8)
    return archive.FashionMNISTSplit(images, labels, np.arange(len(labels)))


@pytest.mark.parametrize(
    'split, message',
    [
        (_tiny([0, 11]), r'not in \[0, 10\)'),
        (_tiny([]), 'missing'),
        (_tiny([1, 2], np.zeros((2, 32, 32), np.uint8)), r'\(2, 32, 32\)'),
        (_tiny([1, 2], np.zeros((3, 28, 28), np.uint8)), r'\(3,\) images'),
    ],
)
def test_archive_with_other_content(tmp_path, split, message):
    path = str(tmp_path / 'other.npz')
    archive.write_archive(path, dict(train=split))
    with pytest.raises(ValueError, match=message):
        archive.read_archive('train', path)


def test_archive_without_the_split(tmp_path):
    path = str(tmp_path / 'train_only.npz')
    archive.write_archive(path, dict(train=_tiny([3, 4])))
    assert archive.read_archive('train', path).labels.tolist() == [3, 4]
    with pytest.raises(ValueError, match='test_images'):
        archive.read_archive('test', path)


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / 'pickled.npz'
    np.savez(path, train_images=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match='damaged or no'):
        archive.read_archive('train', str(path))


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


def test_selection_from_idx_files(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = _write_idx(tmp_path, rng, 'train', 80)
    whole = archive.read_idx_split(str(tmp_path), 'train')
    np.testing.assert_array_equal(whole.images, images)
    np.testing.assert_array_equal(whole.labels, labels)
    kept = archive.select_balanced(whole, 30)
    want = sorted(
        i for c in range(10) for i in [*np.flatnonzero(labels == c)][:3]
    )
    assert kept.indices.tolist() == want
    np.testing.assert_array_equal(kept.images, images[want])
    for count, message in [(25, 'multiple of 10'), (90, 'smallest class')]:
        with pytest.raises(ValueError, match=message):
            archive.select_balanced(whole, count)
    with pytest.raises(FileNotFoundError, match='t10k-images'):
        archive.read_idx_split(str(tmp_path), 'test')


def test_archive_bytes_repeat(tmp_path, committed):
    """Written again from its own content, the archive is the same file."""
    splits = {s: archive.read_archive(s) for s in archive.SPLITS}
    again = tmp_path / 'again.npz'
    archive.write_archive(str(again), splits)
    with (
        np.load(again) as new,
        np.load(archive.DEFAULT_ARCHIVE) as old,
    ):
        assert new.files == old.files
        for name in old.files:
            np.testing.assert_array_equal(new[name], old[name])
            assert new[name].dtype == old[name].dtype
    if again.read_bytes() != committed:
        once_more = tmp_path / 'once_more.npz'
        archive.write_archive(str(once_more), splits)
        assert once_more.read_bytes() == again.read_bytes()
        pytest.skip('same arrays, but the liblzma here packs them otherwise')
