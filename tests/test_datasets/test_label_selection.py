"""Selection by ratio: balanced, nested and reproducible."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunimoco.datasets.annotations import SampleTable
from mmunimoco.datasets.label_selection import (
    balanced_counts,
    ratio_to_count,
    sample_keys,
    select_by_ratio,
)

PINNED_KEYS = [
    15414594721664847679,
    8570075832961240958,
    7097877568844040088,
]
SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=25)
RATIO = st.one_of(
    st.floats(0, 1), st.integers(0, 1000).map(lambda x: x / 1000)
)


def test_ratio_is_read_as_a_decimal():
    assert ratio_to_count(0.1, 1281167) == 128117
    # In doubles 0.29 * 50 is just below 14.5, 0.145 * 100 is 14.499...8.
    assert ratio_to_count(0.29, 50) == 15
    assert ratio_to_count(0.145, 100) == 15
    assert ratio_to_count(1e-05, 50_000) == 1
    assert ratio_to_count(0.0, 7) == 0
    assert ratio_to_count(1.0, 7) == 7


@settings(deadline=None, max_examples=300)
@given(SIZES, RATIO, st.integers(0, 5))
def test_each_class_within_one_of_its_share(sizes, ratio, salt):
    total = ratio_to_count(ratio, sum(sizes))
    counts = balanced_counts(sizes, total, sample_keys(map(str, sizes), salt))
    assert counts.sum() == total
    exact = Fraction(str(ratio))
    for count, size in zip(counts.tolist(), sizes, strict=True):
        assert 0 <= count <= size
        assert abs(count - exact * size) <= 1


@settings(deadline=None, max_examples=25)
@given(SIZES)
def test_no_count_decreases(sizes):
    priority = range(len(sizes))
    last = np.zeros(len(sizes), np.int64)
    for total in range(sum(sizes) + 1):
        counts = balanced_counts(sizes, total, priority)
        assert counts.sum() == total
        assert (counts >= last).all()
        last = counts
    assert last.tolist() == sizes


@pytest.mark.parametrize(
    'sizes',
    [
        [10_000] + [6] * 1000,  # rounding per class gains 400
        [6] * 1000 + [10_000],
        [900, 50, 50],
        [1] * 500,
        [732, 1300, 1300, 1300],
    ],
)
@pytest.mark.parametrize('ratio', [0.001, 0.01, 0.1, 0.3, 0.6, 0.999])
def test_hard_apportionments(sizes, ratio):
    total = ratio_to_count(ratio, sum(sizes))
    counts = balanced_counts(sizes, total, range(len(sizes)))
    assert counts.sum() == total
    assert (np.abs(counts - ratio * np.array(sizes)) <= 1 + 1e-9).all()


def test_equal_classes_get_equal_shares():
    counts = balanced_counts([600] * 10, 600, range(10))
    assert counts.tolist() == [60] * 10
    # With fewer labels than classes, the priority decides.
    counts = balanced_counts([5] * 4, 2, [3, 0, 2, 1])
    assert counts.tolist() == [0, 1, 0, 1]


LABELS = st.lists(st.integers(-1, 6), min_size=0, max_size=120)


@settings(deadline=None, max_examples=150)
@given(LABELS, RATIO, RATIO, st.integers())
def test_selection(labels, ratio_a, ratio_b, seed):
    labels = np.array(labels, np.int64)
    keys = sample_keys([f'img_{i}.png' for i in range(len(labels))], seed)
    small, large = (
        select_by_ratio(labels, keys, ratio)
        for ratio in sorted([ratio_a, ratio_b])
    )
    assert not (small & ~large).any()
    assert not large[labels == -1].any()
    known = labels >= 0
    assert large.sum() == ratio_to_count(max(ratio_a, ratio_b), known.sum())
    for c in np.unique(labels[known]):
        share = max(ratio_a, ratio_b) * (labels == c).sum()
        assert abs(large[labels == c].sum() - share) <= 1 + 1e-9


@settings(deadline=None, max_examples=50)
@given(LABELS, RATIO, st.randoms(use_true_random=False))
def test_independent_of_the_order_of_samples(labels, ratio, random):
    names = [f'img_{i}.png' for i in range(len(labels))]
    order = list(range(len(labels)))
    random.shuffle(order)
    labels = np.array(labels, np.int64)
    keys = sample_keys(names, 0)
    shuffled = sample_keys([names[i] for i in order], 0)
    np.testing.assert_array_equal(
        select_by_ratio(labels, keys, ratio)[order],
        select_by_ratio(labels[order], shuffled, ratio),
    )


def test_no_and_all_labels():
    labels = np.array([0, 0, 1, -1])
    keys = sample_keys('abcd', 0)
    assert not select_by_ratio(labels, keys, 0.0).any()
    assert select_by_ratio(labels, keys, 1.0).tolist() == [1, 1, 1, 0]


def test_recorded_keys():
    """A change of these numbers would change the splits of all users."""
    keys = sample_keys(['n01440764/n01440764_10026.JPEG', '#0', 'ä.png'], 0)
    assert keys.dtype == np.uint64
    assert keys.tolist() == PINNED_KEYS
    assert sample_keys(['#0'], 1)[0] != keys[1]
    # File names need not be valid UTF-8 on Linux.
    assert len(sample_keys([b'\xff.png'.decode('utf8', 'surrogateescape')], 0))


def test_an_image_of_several_classes_counts_for_the_rarest():
    """Of equally rare ones for the smallest id."""
    classes, offsets = np.array([2, 0, 1, 0, 2, 1]), np.array([0, 3, 3, 5, 6])
    table = SampleTable(classes, offsets, [None] * 4, [''] * 4)
    assert table.strata().tolist() == [0, -1, 0, 1]
    classes = np.array([2, 0, 1, 0, 2, 0])
    table = SampleTable(classes, offsets, [None] * 4, [''] * 4)
    assert table.strata().tolist() == [1, -1, 2, 0]


def test_seeds_give_independent_selections():
    labels = np.repeat(np.arange(4), 100)
    names = [f'{i}.png' for i in range(400)]
    chosen = [
        select_by_ratio(labels, sample_keys(names, seed), 0.5)
        for seed in range(20)
    ]
    overlap = [(a & chosen[0]).mean() for a in chosen[1:]]
    assert min(overlap) > 0.15 and max(overlap) < 0.35
