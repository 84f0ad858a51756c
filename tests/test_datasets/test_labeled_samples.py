"""LabeledSubset and RepeatLabeled."""

from collections import Counter

import numpy as np
import pytest
from image_folders import write_image_folder
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

import mmunimoco  # noqa: F401  registers the wrappers
from mmunimoco.utils.config_errors import named_field


@pytest.fixture
def folder(tmp_path):
    return dict(
        type='CustomDataset',
        data_root=str(write_image_folder(tmp_path, per_class=5)),
        pipeline=[
            dict(type='CheckedLoadImageFromFile'),
            dict(type='PackInputs'),
        ],
    )


def _paths(dataset):
    return [
        dataset.get_data_info(index)['img_path']
        for index in range(len(dataset))
    ]


def test_keeps_the_images_that_partial_labels_leaves_labeled(folder):
    partial = DATASETS.build(
        dict(type='PartialLabels', label_ratio=0.4, dataset=folder)
    )
    subset = DATASETS.build(dict(type='LabeledSubset', dataset=partial))
    labels = partial.get_gt_labels()
    assert len(subset) == 6 == (labels >= 0).sum()
    kept = np.flatnonzero(labels >= 0)
    assert _paths(subset) == [_paths(partial)[i] for i in kept]
    assert [subset.get_cat_ids(i) for i in range(6)] == [
        [label] for label in labels[kept]
    ]
    assert subset.metainfo['classes'] == partial.metainfo['classes']


@pytest.mark.parametrize('kind', ['LabeledSubset', 'RepeatLabeled'])
def test_subsets(kind, folder):
    """As of ``KFoldDataset``, which mmpretrain puts around a dataset."""
    options = dict(times=3) if kind == 'RepeatLabeled' else {}
    partial = dict(type='PartialLabels', label_ratio=0.4, dataset=folder)
    whole = dict(type=kind, dataset=partial, **options)
    folds = [
        DATASETS.build(
            dict(type='KFoldDataset', dataset=whole, num_splits=3, **fold)
        )
        for fold in (dict(fold=1), dict(fold=1, test_mode=True))
    ]
    whole = DATASETS.build(whole)
    third = len(whole) // 3
    expected = _paths(whole)
    train, test = map(_paths, folds)
    assert test == expected[third : 2 * third]
    assert train == expected[:third] + expected[2 * third :]
    assert _paths(whole.get_subset(2)) == expected[:2]
    assert _paths(whole.get_subset(-2)) == expected[-2:]
    assert len(whole) == 3 * third
    sample = folds[1][0]['data_samples']
    assert sample.img_path == test[0]


def test_keeps_all_of_a_labeled_dataset_and_skips_minus_one(folder):
    dataset = DATASETS.build(folder)
    assert len(DATASETS.build(dict(type='LabeledSubset', dataset=folder))) == (
        len(dataset)
    )
    data = [dict(img_path='a', gt_label=-1), dict(img_path='b', gt_label=2)]
    data += [dict(img_path='c', gt_label=[]), dict(img_path='d')]
    data += [dict(img_path='e', gt_label=[0, 1])]

    class Listed(CustomDataset):
        def load_data_list(self):
            return data

    subset = DATASETS.build(
        dict(
            type='LabeledSubset',
            dataset=Listed(data_root='.', classes=['x', 'y', 'z']),
        )
    )
    assert _paths(subset) == ['b', 'e']


def test_no_label_at_all_is_an_error(folder):
    dataset = dict(folder, with_label=False)
    with pytest.raises(ValueError, match='none of the 15 samples of Custom'):
        DATASETS.build(dict(type='LabeledSubset', dataset=dataset))


def test_repeats_labeled_images_and_no_others(folder):
    partial = DATASETS.build(
        dict(type='PartialLabels', label_ratio=0.4, dataset=folder)
    )
    repeated = DATASETS.build(
        dict(type='RepeatLabeled', times=3, dataset=partial)
    )
    labels = partial.get_gt_labels()
    counts = Counter(_paths(repeated))
    expected = {
        path: 3 if label >= 0 else 1
        for path, label in zip(_paths(partial), labels, strict=True)
    }
    assert counts == expected
    assert len(repeated) == 9 + 6 * 3
    seen = Counter(tuple(repeated.get_cat_ids(i)) for i in range(27))
    assert seen == {(): 9, (0,): 6, (1,): 6, (2,): 6}
    assert repeated[0]['data_samples'].img_path == _paths(partial)[0]


def test_repeating_once_changes_nothing(folder):
    dataset = DATASETS.build(folder)
    once = DATASETS.build(dict(type='RepeatLabeled', times=1, dataset=dataset))
    assert _paths(once) == _paths(dataset)


@pytest.mark.parametrize('times', [0, -1, 1.5, True, '2'])
def test_repeating_a_wrong_number_of_times(folder, times):
    with pytest.raises(ValueError, match='times must be a positive integer'):
        DATASETS.build(dict(type='RepeatLabeled', times=times, dataset=folder))


def test_nothing_to_repeat_is_an_error(folder):
    dataset = dict(folder, with_label=False)
    with pytest.raises(ValueError, match='none of the 15 samples of Custom'):
        DATASETS.build(dict(type='RepeatLabeled', times=2, dataset=dataset))


@pytest.mark.parametrize(
    ('kind', 'options'),
    [('LabeledSubset', {}), ('RepeatLabeled', {'times': 0})],
)
def test_errors_name_the_field(folder, kind, options):
    """However deep the wrapper is, and whatever wraps it."""
    inner = dict(type=kind, dataset=dict(folder, with_label=False), **options)
    outer = dict(type='PartialLabels', label_ratio=0.5, dataset=inner)
    for field, config in (
        ('train_dataloader.dataset', inner),
        ('train_dataloader.dataset.dataset', outer),
    ):
        with (
            pytest.raises(ValueError, match=f'^{field}: (none of|RepeatLab)'),
            named_field('train_dataloader'),
        ):
            DATASETS.build(config)
