"""Labels: collected from data samples, checked, and compared."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.structures import DataSample

from mmunimoco.models.labels import (
    KeyBlock,
    SampleLabels,
    collect_indices,
    collect_labels,
)


def sample(label=None, **metainfo):
    data_sample = DataSample(metainfo=metainfo)
    return data_sample if label is None else data_sample.set_gt_label(label)


def test_absent_and_minus_one_are_unlabeled():
    labels = collect_labels([sample(3), sample(), sample(-1), sample([2])])
    assert labels.tolist() == [3, -1, -1, 2] and labels.dtype == torch.int64
    none = collect_labels([sample(), sample()])
    assert none.tolist() == [-1, -1] and none.dtype == torch.int64


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


@settings(deadline=None, max_examples=80)
@given(
    ignore=st.booleans(),
    exclude=st.booleans(),
    own_start=st.sampled_from([None, 0, 3]),
    multi_label=st.booleans(),
    start=st.integers(0, 9),
    seed=st.integers(0, 10**6),
)
def test_masks_equal_the_rules_written_out(
    ignore, exclude, own_start, multi_label, start, seed
):
    torch.manual_seed(seed)
    n, m, chunk = 4, 12, slice(start, 11)
    labels = [torch.rand(rows, 3) < 0.25 for rows in (n, m)]
    sets = [
        [set(row.nonzero().flatten().tolist()) for row in x] for x in labels
    ]
    if not multi_label:
        labels = [torch.randint(-1, 3, (rows,)) for rows in (n, m)]
        sets = [[{int(c)} - {-1} for c in x] for x in labels]
    queries, keys = (
        SampleLabels(x, torch.randint(-1, 3, (len(x),))) for x in labels
    )
    block = KeyBlock(
        torch.zeros(m, 2), keys, queries, ignore, exclude, own_start
    )
    masks = block.masks(chunk)
    positives, ignored = (
        torch.zeros(n, 11 - start, dtype=torch.bool) if x is None else x
        for x in masks
    )
    for i in range(n):
        for column, j in enumerate(range(start, 11)):
            index = int(queries.indices[i])
            own = exclude and index == int(keys.indices[j]) and index >= 0
            match = bool(sets[0][i] & sets[1][j]) and not own
            left_out = own
            if ignore and sets[0][i] and not sets[1][j]:
                left_out = True
            if own_start is not None:
                match = match and j != own_start + i
                left_out = not match
            assert positives[i, column] == match
            assert ignored[i, column] == left_out


def test_no_labels_need_no_mask():
    keys = SampleLabels(torch.arange(9))
    queries = SampleLabels(torch.tensor([-1]), has_labels=False)
    block = KeyBlock(torch.zeros(9, 2), keys, queries, ignore_unlabeled=True)
    assert block.masks(slice(0, 9)) == (None, None)
