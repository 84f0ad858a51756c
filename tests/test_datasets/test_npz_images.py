"""Images and labels of one .npz file."""

import numpy as np
import pytest
from mmengine.dataset import default_collate
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader

from demo import DATA_FILE
from mmunimoco.datasets import NpzImages

GRAY = np.random.default_rng(0).integers(0, 256, (6, 8, 9), np.uint8)
LABELS = np.array([0, 2, 1, -1, 2, 0])
TWO_VIEWS = [
    dict(
        type='MultiView',
        num_views=2,
        transforms=[[dict(type='RandomResizedCrop', scale=8)]],
    ),
    dict(type='PackInputs'),
]


@pytest.fixture
def write(tmp_path):
    def write(name='images.npz', **arrays):
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


def test_gray_images_as_three_channels_or_one(write):
    path = write(train_images=GRAY, train_labels=LABELS)
    dataset = NpzImages(path)
    assert len(dataset) == 6 and dataset.CLASSES is None
    sample = dataset[4]
    np.testing.assert_array_equal(
        sample['img'], np.stack([GRAY[4]] * 3, axis=-1)
    )
    assert sample['img'].dtype == np.uint8
    assert sample['gt_label'] == 2
    assert sample['img_path'] == 'train_00004.png'
    single = NpzImages(path, channels=1)
    np.testing.assert_array_equal(single[4]['img'], GRAY[4])
    assert 'Split: \ttrain' in repr(dataset)


def test_color_images_indices_and_class_names(write):
    color = np.stack([GRAY, GRAY // 2, GRAY // 3], axis=-1)
    path = write(
        val_images=color,
        val_labels=LABELS,
        val_indices=np.array([7, 5, 123456, 0, 1, 2]),
        classes=np.array(['cat', 'dog', 'ox']),
    )
    config = dict(type='mmpretrain.NpzImages', ann_file=path, split='val')
    dataset = DATASETS.build(config)
    np.testing.assert_array_equal(dataset[2]['img'], color[2])
    assert dataset[2]['img_path'] == 'val_123456.png'
    assert dataset[0]['img_path'] == 'val_00007.png'
    assert dataset.CLASSES == ('cat', 'dog', 'ox')
    renamed = NpzImages(path, 'val', classes=['a', 'b', 'c'])
    assert tuple(renamed.CLASSES) == ('a', 'b', 'c')
    with pytest.raises(ValueError, match=r'channels=1.*\(6, 8, 9, 3\)'):
        NpzImages(path, 'val', channels=1)


def test_two_views_through_a_loader(write):
    path = write(train_images=GRAY, train_labels=LABELS)
    dataset = NpzImages(path, pipeline=TWO_VIEWS, indices=5)
    loader = DataLoader(dataset, batch_size=5, collate_fn=default_collate)
    batch = next(iter(loader))
    assert [view.shape for view in batch['inputs']] == [(5, 3, 8, 8)] * 2
    labels = [int(sample.gt_label) for sample in batch['data_samples']]
    assert labels == LABELS[:5].tolist()


@pytest.mark.parametrize(
    'arrays, message',
    [
        (dict(train_labels=LABELS), "no array 'train_images'.*train_labels"),
        (dict(test_images=GRAY), "no array 'train_images'.*test_images"),
        (dict(train_images=GRAY), "no array 'train_labels'"),
        (
            dict(train_images=GRAY / 255, train_labels=LABELS),
            r'uint8.*got float64 \(6, 8, 9\)',
        ),
        (
            dict(train_images=GRAY[:0], train_labels=LABELS[:0]),
            r'N > 0, got uint8 \(0, 8, 9\)',
        ),
        (
            dict(train_images=GRAY, train_labels=LABELS[:4]),
            r'labels must be one integer for each image, got int64 \(4,\)',
        ),
        (
            dict(train_images=GRAY, train_labels=LABELS / 2),
            'labels must be one integer.*float64',
        ),
        (
            dict(train_images=GRAY, train_labels=LABELS - 1),
            'at least -1, got -2',
        ),
        (
            dict(
                train_images=GRAY, train_labels=LABELS, classes=np.array(['a'])
            ),
            'label 2 is outside of the 1 classes',
        ),
        (
            dict(train_images=GRAY, train_labels=LABELS, train_indices=LABELS),
            'indices must be unique and not negative',
        ),
        (
            dict(train_images=np.array([{}], dtype=object)),
            'damaged or not an .npz file',
        ),
    ],
)
def test_arrays_of_another_form(write, arrays, message):
    path = write('faulty.npz', **arrays)
    with pytest.raises(ValueError, match=f'faulty.npz.*{message}'):
        NpzImages(path)


def test_missing_file_and_channels(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone.npz'):
        NpzImages('gone.npz', data_root=str(tmp_path))
    with pytest.raises(ValueError, match='channels must be 1 or 3, got 2'):
        NpzImages(DATA_FILE, channels=2)


@pytest.mark.parametrize('fault', ['truncated', 'altered', 'text', 'empty'])
def test_damaged_file(tmp_path, fault):
    with open(DATA_FILE, 'rb') as file:
        content = file.read()
    middle = len(content) // 3
    damaged = {
        'truncated': content[:middle],
        'altered': content[:middle] + bytes(64) + content[middle + 64 :],
        'text': b'not an archive',
        'empty': b'',
    }[fault]
    path = tmp_path / 'damaged.npz'
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='damaged.npz.*damaged or not'):
        NpzImages(str(path))
