"""Listed pairs of equal labels against the comparison of all pairs."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunimoco.models.heads.label_rules import (
    QueueRule,
    list_same_class,
    same_class,
)
from mmunimoco.models.heads.sample_labels import SampleLabels
from mmunimoco.models.losses import PairList


def draw_labels(n, classes, unlabeled, generator):
    labels = torch.randint(classes, (n,), generator=generator)
    drawn = torch.rand(n, generator=generator)
    return labels.masked_fill(drawn < unlabeled, -1)


@settings(deadline=None, max_examples=80)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 60),
    classes=st.sampled_from([1, 3, 40, 10**12]),
    unlabeled=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_list_equals_matrix(n, m, classes, unlabeled, seed):
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (
        SampleLabels(draw_labels(x, classes, unlabeled, generator))
        for x in (n, m)
    )
    wanted = same_class(queries, keys)
    pairs = list_same_class(queries, keys)
    # Too many to list are one in 32 or more.
    assert (pairs is None) == (32 * int(wanted.sum()) >= n * m)
    if pairs is None:
        return
    assert torch.equal(pairs.matrix(n, m), wanted)
    assert len(pairs) == wanted.sum()
    assert torch.equal(pairs.rows, pairs.rows.sort()[0])
    table = torch.randn(m, 4, dtype=torch.float64, generator=generator)
    weights = torch.rand(len(pairs), dtype=torch.float64, generator=generator)
    dense = torch.zeros(n, m, dtype=torch.float64)
    dense[pairs.rows, pairs.columns] = weights
    torch.testing.assert_close(
        pairs.sum_keys(table, n, weights), dense @ table
    )
    torch.testing.assert_close(
        pairs.sum_keys(table, n), wanted.double() @ table
    )


def test_rule_lists_few_and_leaves_own_keys_out():
    """On a CPU; the same keys as in the matrix of all pairs."""
    generator = torch.Generator().manual_seed(0)
    queries, keys = (
        SampleLabels(
            draw_labels(n, 50, 0.2, generator),
            torch.randint(8, (n,), generator=generator),
        )
        for n in (16, 300)
    )
    own = queries.indices.unsqueeze(1) == keys.indices
    wanted = same_class(queries, keys) & ~own
    assert wanted.any() and (same_class(queries, keys) & own).any()
    positives, ignored = QueueRule(exclude_own_keys=True)(queries, keys)
    assert isinstance(positives, PairList)
    assert torch.equal(positives.matrix(16, 300), wanted)
    assert torch.equal(ignored, own)
