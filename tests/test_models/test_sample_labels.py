"""From data samples to label tensors."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmunimoco.models.labels import collect_indices, collect_labels


def sample(label=None, **metainfo):
    data_sample = DataSample(metainfo=metainfo)
    return data_sample if label is None else data_sample.set_gt_label(label)


def test_absent_and_minus_one_are_unlabeled():
    labels = collect_labels([sample(3), sample(), sample(-1), sample([2])])
    assert labels.tolist() == [3, -1, -1, 2] and labels.dtype == torch.int64


@pytest.mark.parametrize('multi_label', [False, True])
def test_empty_label_is_unlabeled(multi_label):
    empty = sample(0)
    empty.set_field(torch.zeros(0).long(), 'gt_label')
    for samples in ([empty, sample(1)], [empty, sample()]):
        labels = collect_labels(samples, 2, multi_label)
        assert labels[0].tolist() == ([False] * 2 if multi_label else -1)
        assert labels.dtype == (torch.bool if multi_label else torch.int64)


def test_multi_label_becomes_multi_hot():
    samples = [sample([0, 2]), sample(), sample(-1), sample(1), sample([])]
    samples[-1].set_field(torch.zeros(0).long(), 'gt_label')
    labels = collect_labels(samples, num_classes=3, multi_label=True)
    assert labels.dtype == torch.bool and labels.is_contiguous()
    assert labels.int().tolist() == [
        [1, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_several_labels_need_multi_label():
    samples = [sample(1), sample([0, 2], img_path='b/two.jpg')]
    with pytest.raises(ValueError, match='two.jpg has 2 labels.*multi_label'):
        collect_labels(samples)


@pytest.mark.parametrize('label', [3, -2, [0, 7]])
def test_multi_label_out_of_range_raises(label):
    with pytest.raises(ValueError, match=r'must be in \[-1, 2\]'):
        collect_labels([sample(label)], num_classes=3, multi_label=True)


def test_indices_tell_concatenated_data_sets_apart():
    def indices():
        return collect_indices(
            [
                sample(sample_idx=5, img_path='labeled/a.jpg'),
                sample(sample_idx=5, img_path='unlabeled/a.jpg'),
                sample(sample_idx=6, img_path='unlabeled/b.jpg'),
                sample(sample_idx=6),
                sample(img_path='labeled/a.jpg'),
            ]
        ).tolist()

    assert len(set(indices())) == 5 and min(indices()) >= 0
    assert indices() == indices()


def test_indices_need_an_identity():
    with pytest.raises(ValueError, match='sample_idx'):
        collect_indices([sample(1)])
