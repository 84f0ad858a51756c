"""PartialLabels: which samples stay labeled, and what the pipeline sees."""

import json
import logging
import pickle

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmpretrain.datasets import CIFAR10, CustomDataset, MultiLabelDataset
from mmpretrain.registry import DATASETS
from torch.utils.data import TensorDataset
from toy_dataset import Toy, labeled, toy

from mmunimoco.datasets import PartialLabels

CLASSES = [i % 5 for i in range(100)]
# Three classes of 14, 13 and 13 images, one of 7, and 3 unlabeled images.
UNEVEN = [i % 3 for i in range(40)] + [3] * 7 + [None] * 3
MULTI = [[0], [0, 1], [0, 2], [0], [1], [1, 0], [2, 0], [], [0], [0, 1]] * 2


@pytest.mark.parametrize(
    'dataset, ratio, seed, expected',
    [
        (
            *(toy(UNEVEN), 0.3, 0),
            [3, 6, 7, 11, 13, 20, 21, 22, 34, 35, 38, 39, 42, 44],
        ),
        (
            *(toy(UNEVEN), 0.3, 7),
            [3, 9, 14, 16, 17, 26, 28, 30, 34, 35, 36, 37, 40, 41],
        ),
        (  # without paths, the position in the dataset identifies an image
            *(Toy([dict(gt_label=c) for c in UNEVEN]), 0.3, 0),
            [7, 8, 11, 14, 16, 17, 19, 21, 22, 24, 27, 36, 41, 45],
        ),
        (toy(MULTI, 'x/'), 0.4, 1, [1, 3, 5, 10, 12, 18, 19]),
    ],
    ids=['seed 0', 'seed 7', 'no paths', 'several classes'],
)
def test_recorded_selections(dataset, ratio, seed, expected):
    """A change of these indices would change the splits of all users."""
    np.random.seed(99)
    partial = PartialLabels(dataset, label_ratio=ratio, seed=seed)
    ids = [partial.get_cat_ids(i) for i in range(len(partial))]
    assert [i for i, classes in enumerate(ids) if classes] == expected
    after = np.random.rand()
    np.random.seed(99)
    assert after == np.random.rand(), 'the global random state was used'


@pytest.mark.parametrize('serialize_data', [True, False])
def test_labels_are_removed_before_the_pipeline(serialize_data):
    seen = []
    dataset = toy(CLASSES, serialize_data=serialize_data)
    dataset.pipeline.transforms.append(lambda x: seen.append(dict(x)) or x)
    partial = PartialLabels(dataset, label_ratio=0.3)
    out = [partial[i] for i in range(100)]
    kept = labeled(partial)
    assert len(kept) == 30
    assert [CLASSES[i] for i in kept].count(2) == 6
    for i, (before, after) in enumerate(zip(seen, out, strict=True)):
        assert before['sample_idx'] == i
        if i in kept:
            assert before['gt_label'] == after['gt_label'] == CLASSES[i]
        else:
            assert set(before) == {'img_path', 'sample_idx'}
            assert 'gt_label' not in after
    assert labeled(dataset) == list(range(100)), 'the argument was changed'


def test_replacements_of_failed_samples_follow_the_selection():
    """BaseDataset draws another sample where a pipeline returns None."""
    dataset = toy(CLASSES)
    dataset.pipeline.transforms.append(
        lambda info: None if info['sample_idx'] % 2 else info
    )
    partial = PartialLabels(dataset, label_ratio=0.3)
    kept = set(labeled(partial))
    for i in range(100):
        info = partial[i]
        index = info['sample_idx']
        assert index % 2 == 0
        assert info.get('gt_label') == (
            CLASSES[index] if index in kept else None
        )


def test_selections_are_nested():
    last = set()
    for ratio in (0.0, 0.01, 0.1, 0.3, 0.6, 1.0):
        kept = set(labeled(PartialLabels(toy(CLASSES), label_ratio=ratio)))
        assert last <= kept and len(kept) == 100 * ratio
        last = kept


def test_unlabeled_samples_stay_and_do_not_count():
    labels = [None, -1, np.int64(-1), []] + [0, 1] * 10
    full = PartialLabels(toy(labels), label_ratio=1.0)
    assert labeled(full) == list(range(4, 24))
    half = PartialLabels(toy(labels), label_ratio=0.5)
    assert len(half) == 24 and len(labeled(half)) == 10
    assert (half.get_gt_labels() == -1).sum() == 14


def test_soft_labels_are_removed_too():
    infos = [dict(gt_label=1, gt_score=[0, 1.0]), dict(gt_score=[1.0, 0])]
    partial = PartialLabels(Toy(infos), label_ratio=0.0)
    assert partial.get_data_info(0) == {'sample_idx': 0}
    assert partial.get_data_info(1) == {'sample_idx': 1}


def test_methods_and_pickle():
    dataset = toy([3, 4] * 10, metainfo=dict(classes=list('abcde')))
    partial = PartialLabels(dataset, label_ratio=0.5)
    assert partial.CLASSES == list('abcde') == partial.metainfo['classes']
    truth = partial.get_gt_labels()
    assert truth.dtype == np.int64 and sorted(set(truth)) == [-1, 3, 4]
    assert partial.highest_label == 4
    for i in range(20):
        assert partial.get_cat_ids(i) == ([] if truth[i] < 0 else [truth[i]])
    assert 'label_ratio=0.5, seed=0' in repr(partial)
    again = pickle.loads(pickle.dumps(partial))
    np.testing.assert_array_equal(again.get_gt_labels(), truth)


@pytest.mark.parametrize('serialize_data', [True, False])
def test_subsets_keep_the_selection(serialize_data):
    partial = PartialLabels(
        toy(CLASSES, serialize_data=serialize_data), label_ratio=0.4
    )
    truth = partial.get_gt_labels()
    subset = partial.get_subset([7, 3, 50])
    assert isinstance(subset, PartialLabels) and len(partial) == 100
    np.testing.assert_array_equal(subset.get_gt_labels(), truth[[7, 3, 50]])
    partial.get_subset_(10)
    np.testing.assert_array_equal(partial.get_gt_labels(), truth[:10])


def test_copies_of_an_image_are_all_labeled_or_all_unlabeled():
    dataset = RepeatDataset(toy(CLASSES), times=3)
    partial = PartialLabels(dataset, label_ratio=0.2)
    truth = partial.get_gt_labels().reshape(3, 100)
    assert (truth[0] >= 0).sum() == 20 and (truth == truth[0]).all()
    alone = PartialLabels(toy(CLASSES), label_ratio=0.2)
    np.testing.assert_array_equal(truth[0], alone.get_gt_labels())
    assert len(labeled(dataset)) == 300, 'the argument was changed'


def test_concatenated_datasets():
    parts = [toy([0] * 50, 'a/'), toy([1] * 30, 'b/'), toy([None] * 9)]
    partial = PartialLabels(ConcatDataset(parts), label_ratio=0.1)
    truth = partial.get_gt_labels()
    assert (truth[:50] == 0).sum() == 5 and (truth[50:80] == 1).sum() == 3
    assert len(truth) == 89 and (truth[80:] == -1).all()
    # One dataset given twice is one set of images.
    twice = ConcatDataset([parts[0], parts[0]])
    truth = PartialLabels(twice, label_ratio=0.1).get_gt_labels()
    assert (truth >= 0).sum() == 10
    np.testing.assert_array_equal(truth[:50], truth[50:])


def test_wrappers_of_mmpretrain_below_and_above():
    infos = [dict(img_path=f'{i}.png', gt_label=i % 5) for i in range(200)]
    leaf = dict(type=Toy, infos=infos)
    inner = dict(type='PartialLabels', label_ratio=0.25, dataset=leaf)
    fold = dict(type='KFoldDataset', dataset=leaf, fold=1, seed=3)
    below = DATASETS.build(dict(inner, dataset=fold))
    assert len(below) == 160 and len(labeled(below)) == 40
    truth = DATASETS.build(inner).get_gt_labels()
    above = DATASETS.build(dict(type='KFoldDataset', dataset=inner))
    np.testing.assert_array_equal(above.get_gt_labels(), truth[40:])
    balanced = DATASETS.build(
        dict(type='ClassBalancedDataset', dataset=inner, oversample_thr=1.0)
    )
    assert len({balanced.repeat_indices[i] for i in labeled(balanced)}) == 50
    both = DATASETS.build(
        dict(type='PartialLabels', label_ratio=0.5, dataset=inner)
    )
    assert len(labeled(both)) == 25
    assert set(labeled(both)) < set(np.flatnonzero(truth >= 0).tolist())


class OfflineCIFAR10(CIFAR10):
    train_list = [['data_batch_1', None]]
    test_list = []


def test_cifar10(tmp_path):
    """Images in memory: a ratio works, a list cannot."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (60, 3072), np.uint8)
    batch = dict(data=images, labels=[i % 10 for i in range(60)])
    (folder / 'data_batch_1').write_bytes(pickle.dumps(batch))
    dataset = OfflineCIFAR10(data_root=str(tmp_path), download=False)
    partial = PartialLabels(dataset, label_ratio=0.5)
    truth = partial.get_gt_labels()
    assert np.bincount(truth[truth >= 0]).tolist() == [3] * 10
    for i in range(60):
        np.testing.assert_array_equal(partial[i]['img'], dataset[i]['img'])
    list_file = tmp_path / 'list.txt'
    list_file.write_text('a.png\n')
    with pytest.raises(ValueError, match='img_path.*use label_ratio'):
        PartialLabels(dataset, label_list=str(list_file))


def test_several_classes_per_image(tmp_path):
    rng = np.random.default_rng(0)
    common = rng.random((400, 3)) < [0.9, 0.5, 0.05]
    infos = [
        dict(img_path=f'{i}.jpg', gt_label=np.flatnonzero(row).tolist())
        for i, row in enumerate(common)
    ]
    ann_file = tmp_path / 'ann.json'
    ann_file.write_text(
        json.dumps(dict(metainfo=dict(classes=list('abc')), data_list=infos))
    )
    dataset = MultiLabelDataset(ann_file=str(ann_file))
    last = set()
    for ratio in (0.1, 0.3, 0.6):
        partial = PartialLabels(dataset, label_ratio=ratio)
        kept = labeled(partial)
        assert last <= set(kept)
        last = set(kept)
        assert abs(len(kept) - ratio * common.any(1).sum()) <= 0.5
        # The rarest class is a stratum of its own.
        assert abs(common[kept][:, 2].sum() - ratio * common[:, 2].sum()) <= 1
        assert all(
            partial.get_cat_ids(i) == infos[i]['gt_label'] for i in kept
        )
    with pytest.raises(TypeError, match='get_cat_ids'):
        partial.get_gt_labels()


@pytest.fixture
def messages():
    """(level, text) of what is logged."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda r: found.append((r.levelname, r.getMessage()))
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def test_logs_how_many_are_labeled(messages):
    PartialLabels(toy(CLASSES + [None] * 7), label_ratio=0.1)
    assert messages == [
        (
            'INFO',
            'PartialLabels: 10 of 100 images (10.0 %) of 5 of 5 classes keep '
            'their label; 7 more images are unlabeled in the dataset',
        )
    ]


def test_warns_of_classes_without_a_label(messages):
    PartialLabels(toy([0] * 50 + [1, 2, 3]), label_ratio=0.04)
    (_, counts), (level, text) = messages
    assert counts.startswith('PartialLabels: 2 of 53 images (3.8 %) of 1 of 4')
    assert level == 'WARNING'
    assert '3 of 4 classes have no labeled image' in text


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        ({}, ValueError, 'exactly one of label_ratio and label_list'),
        (dict(label_ratio=0.1, label_list='x'), ValueError, 'exactly one'),
        (dict(label_ratio=-0.1), ValueError, r'in \[0, 1\], got -0.1'),
        (dict(label_ratio=10), ValueError, r'in \[0, 1\], got 10'),
        (dict(label_ratio=float('nan')), ValueError, 'got nan'),
        (dict(label_ratio='0.1'), TypeError, "a number, got '0.1'"),
        (dict(label_ratio=True), TypeError, 'a number, got True'),
        (dict(label_list='  '), ValueError, 'empty path'),
        (dict(label_list=['a.png']), TypeError, 'path of a text file'),
        (dict(label_list='no/10pct.txt'), FileNotFoundError, 'no/10pct.txt'),
        (dict(label_ratio=0.1, seed=False), TypeError, 'seed.*False'),
        (dict(label_ratio=0.1, seed=0.5), TypeError, 'seed.*0.5'),
    ],
)
def test_bad_arguments(kwargs, error, message):
    """All are found before the annotations are read, a missing list too."""
    dataset = toy(CLASSES, lazy_init=True)
    with pytest.raises(error, match=message):
        PartialLabels(dataset, **kwargs)
    assert not dataset._fully_initialized


@pytest.mark.parametrize('label', ['cat', 0.5, -2, [0, -1], [0, 'x']])
def test_bad_labels(label):
    with pytest.raises(ValueError, match='sample 1 of Toy.*class id'):
        PartialLabels(toy([0, label]), label_ratio=0.5)


def test_ratio_of_an_unlabeled_dataset():
    with pytest.raises(ValueError, match='none of the 4 images has a label'):
        PartialLabels(toy([None] * 4), label_ratio=0.1)
    assert labeled(PartialLabels(toy([None] * 4), label_ratio=0.0)) == []


class LabelMaker(CustomDataset):
    """Computes labels that are not in the annotations."""

    def get_data_info(self, idx):
        return dict(super().get_data_info(idx), gt_label=idx % 2)


class Sharpener(CustomDataset):
    def get_data_info(self, idx):
        return dict(super().get_data_info(idx), sharp=True)


def test_datasets_with_their_own_get_data_info(imagenet_folder):
    prefix = str(imagenet_folder)
    with pytest.raises(TypeError, match='LabelMaker.get_data_info returns'):
        PartialLabels(LabelMaker(data_prefix=prefix), label_ratio=0.5)
    partial = PartialLabels(Sharpener(data_prefix=prefix), label_ratio=0.5)
    assert len(labeled(partial)) == 11 and partial.get_data_info(0)['sharp']


def test_datasets_of_another_kind():
    with pytest.raises(TypeError, match='got TensorDataset'):
        PartialLabels(TensorDataset(), label_ratio=0.5)

    class Odd:
        def full_init(self):
            pass

    with pytest.raises(TypeError, match='Odd is neither'):
        PartialLabels(Odd(), label_ratio=0.5)
