"""PartialLabels over every kind of dataset: who keeps a label, who sees it."""

import json
import os
import pickle
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.datasets import CIFAR10, MultiLabelDataset
from mmpretrain.registry import DATASETS
from toy_dataset import Toy, labeled, toy

from demo import DATA_FILE
from mmunimoco.datasets import NpzImages, PartialLabels

CLASSES = [i % 5 for i in range(100)]


@pytest.mark.parametrize('serialize_data', [True, False])
def test_labels_are_gone_before_the_pipeline(serialize_data):
    seen = []
    dataset = toy(CLASSES, serialize_data=serialize_data)
    dataset.pipeline.transforms.append(lambda x: seen.append(dict(x)) or x)
    partial = PartialLabels(dataset, label_ratio=0.3)
    out = [partial[i] for i in range(100)]
    assert len(seen) == 100
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
    # The dataset that was handed in is untouched.
    assert labeled(dataset) == list(range(100))


def test_refetched_samples_have_their_own_labels():
    """A broken image is replaced by a random other one, label rule and all."""
    seen = []

    def half_broken(info):
        seen.append(dict(info))
        return None if info['sample_idx'] % 2 else info

    dataset = toy(CLASSES)
    dataset.pipeline.transforms.append(half_broken)
    partial = PartialLabels(dataset, label_ratio=0.3)
    kept = set(labeled(partial))
    for i in range(100):
        info = partial[i]
        index = info['sample_idx']
        assert index % 2 == 0
        assert info.get('gt_label') == (
            CLASSES[index] if index in kept else None
        )
    assert len(seen) > 100
    assert all(('gt_label' in x) == (x['sample_idx'] in kept) for x in seen)


def test_nested_over_ratios():
    last = set()
    for ratio in (0.0, 0.01, 0.1, 0.3, 0.6, 1.0):
        kept = set(labeled(PartialLabels(toy(CLASSES), label_ratio=ratio)))
        assert last <= kept and len(kept) == 100 * ratio
        last = kept


def test_samples_without_a_label_stay_and_do_not_count():
    labels = [None, -1, np.int64(-1), []] + [0, 1] * 10
    full = PartialLabels(toy(labels), label_ratio=1.0)
    assert labeled(full) == list(range(4, 24))
    half = PartialLabels(toy(labels), label_ratio=0.5)
    assert len(half) == 24 and len(labeled(half)) == 10
    assert (half.get_gt_labels() == -1).sum() == 14


def test_soft_labels_go_with_the_label():
    infos = [dict(gt_label=1, gt_score=[0, 1.0]), dict(gt_score=[1.0, 0])]
    partial = PartialLabels(Toy(infos), label_ratio=0.0)
    assert partial.get_data_info(0) == {'sample_idx': 0}
    assert partial.get_data_info(1) == {'sample_idx': 1}


def test_methods():
    partial = PartialLabels(
        toy([3, 4] * 10, metainfo=dict(classes=list('abcde')), test_mode=True),
        label_ratio=0.5,
    )
    assert partial.CLASSES == list('abcde') == partial.metainfo['classes']
    assert partial.class_to_idx['e'] == 4
    assert partial.test_mode is True
    truth = partial.get_gt_labels()
    assert truth.dtype == np.int64 and sorted(set(truth)) == [-1, 3, 4]
    for i in range(20):
        assert partial.get_cat_ids(i) == ([] if truth[i] < 0 else [truth[i]])
    assert 'label_ratio=0.5, seed=0' in repr(partial)
    again = pickle.loads(pickle.dumps(partial))
    np.testing.assert_array_equal(again.get_gt_labels(), truth)


@pytest.mark.parametrize('serialize_data', [True, False])
def test_subsets_keep_the_choice(serialize_data):
    partial = PartialLabels(
        toy(CLASSES, serialize_data=serialize_data), label_ratio=0.4
    )
    truth = partial.get_gt_labels()
    subset = partial.get_subset([7, 3, 50])
    assert isinstance(subset, PartialLabels) and len(partial) == 100
    np.testing.assert_array_equal(subset.get_gt_labels(), truth[[7, 3, 50]])
    partial.get_subset_(10)
    np.testing.assert_array_equal(partial.get_gt_labels(), truth[:10])


def test_lazy_init():
    dataset = toy(CLASSES, lazy_init=True)
    partial = PartialLabels(dataset, label_ratio=0.1, lazy_init=True)
    assert not partial._fully_initialized and not dataset._fully_initialized
    assert len(partial) == 100  # reads the annotations after all
    assert len(labeled(partial)) == 10


def test_repeated_images_are_labeled_in_all_copies_or_none():
    dataset = RepeatDataset(toy(CLASSES), times=3)
    partial = PartialLabels(dataset, label_ratio=0.2)
    truth = partial.get_gt_labels().reshape(3, 100)
    assert len(partial) == 300 and (truth[0] >= 0).sum() == 20
    assert (truth == truth[0]).all()
    alone = PartialLabels(toy(CLASSES), label_ratio=0.2)
    np.testing.assert_array_equal(truth[0], alone.get_gt_labels())
    assert len(labeled(dataset)) == 300


def test_concatenated_datasets_are_one():
    parts = [toy([0] * 50, 'a/'), toy([1] * 30, 'b/'), toy([None] * 9)]
    partial = PartialLabels(ConcatDataset(parts), label_ratio=0.1)
    truth = partial.get_gt_labels()
    assert len(truth) == 89
    assert (truth[:50] == 0).sum() == 5 and (truth[50:80] == 1).sum() == 3
    assert (truth[80:] == -1).all()
    # The very same dataset twice is one set of images.
    twice = ConcatDataset([parts[0], parts[0]])
    truth = PartialLabels(twice, label_ratio=0.1).get_gt_labels()
    assert (truth >= 0).sum() == 10
    np.testing.assert_array_equal(truth[:50], truth[50:])


DEMO = dict(type='NpzImages', ann_file=DATA_FILE, split='test', indices=200)


def test_wrappers_below_and_above_by_config():
    below = dict(
        type='PartialLabels',
        label_ratio=0.25,
        dataset=dict(type='KFoldDataset', dataset=DEMO, fold=1, seed=3),
    )
    partial = DATASETS.build(below)
    assert len(partial) == 160 and len(labeled(partial)) == 40

    inner = dict(type='PartialLabels', label_ratio=0.25, dataset=DEMO)
    balanced = DATASETS.build(
        dict(type='ClassBalancedDataset', dataset=inner, oversample_thr=1.0)
    )
    assert len(balanced) > 200
    assert len({balanced.repeat_indices[i] for i in labeled(balanced)}) == 50
    fold = DATASETS.build(dict(type='KFoldDataset', dataset=inner))
    truth = DATASETS.build(inner).get_gt_labels()
    np.testing.assert_array_equal(fold.get_gt_labels(), truth[40:])
    both = DATASETS.build(
        dict(type='PartialLabels', label_ratio=0.5, dataset=inner)
    )
    assert len(labeled(both)) == 25
    assert set(labeled(both)) < set(np.flatnonzero(truth >= 0).tolist())


def test_class_balanced_below():
    rare = toy([0] * 90 + [1] * 10)
    wrapped = DATASETS.build(
        dict(
            type='PartialLabels',
            label_ratio=0.5,
            dataset=dict(
                type='ClassBalancedDataset',
                oversample_thr=0.5,
                dataset=dict(
                    type='PartialLabels', dataset=rare, label_ratio=1.0
                ),
            ),
        )
    )
    truth = wrapped.get_gt_labels()
    assert len(truth) == 90 + 10 * 3  # sqrt(0.5 / 0.1), rounded up
    assert (truth == 0).sum() == 45 and (truth == 1).sum() == 5 * 3


class OfflineCIFAR10(CIFAR10):
    train_list = [['data_batch_1', None]]
    test_list = []


def test_cifar10(tmp_path):
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


def test_multi_label(tmp_path):
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
    has_label = common.any(1)
    for ratio in (0.1, 0.3, 0.6):
        partial = PartialLabels(dataset, label_ratio=ratio)
        kept = labeled(partial)
        assert last <= set(kept)
        last = set(kept)
        assert abs(len(kept) - ratio * has_label.sum()) <= 0.5
        # The rarest class is a stratum of its own.
        assert abs(common[kept][:, 2].sum() - ratio * common[:, 2].sum()) <= 1
        for i in kept:
            assert partial.get_cat_ids(i) == infos[i]['gt_label']
    with pytest.raises(TypeError, match='get_cat_ids'):
        partial.get_gt_labels()


def _digest(dataset):
    return sha256(dataset.get_gt_labels().tobytes()).hexdigest()


PURITY = """
import random, sys
import numpy as np, torch
random.seed(int(sys.argv[1])); np.random.seed(3); torch.manual_seed(4)
from hashlib import sha256
from demo import DATA_FILE
from mmunimoco.datasets import NpzImages, PartialLabels
d = PartialLabels(NpzImages(DATA_FILE, 'test'), label_ratio=0.1, seed=7)
print('digest', sha256(d.get_gt_labels().tobytes()).hexdigest())
print('state', random.random(), np.random.rand(), torch.rand(1).item())
"""


def test_pure_function_of_seed_and_dataset():
    """Another process, hash seed and random state: the same, and pinned."""
    dataset = NpzImages(DATA_FILE, 'test')
    np.random.seed(99)
    want = _digest(PartialLabels(dataset, label_ratio=0.1, seed=7))
    after = np.random.rand()
    np.random.seed(99)
    assert after == np.random.rand(), 'the global random state was used'
    assert want.startswith(PINNED)
    done = subprocess.run(
        [sys.executable, '-c', PURITY, '11'],
        env={**os.environ, 'PYTHONHASHSEED': '123', 'PYTHONPATH': os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'digest {want}' in done.stdout
    other = _digest(PartialLabels(dataset, label_ratio=0.1, seed=8))
    assert other != want


PINNED = 'f49c3ab9f4b3848815a39333e35cad67'
