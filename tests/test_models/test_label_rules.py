"""Listed pairs of equal labels against the comparison of all pairs."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunimoco.models.label_rules import (
    LARGEST_LABEL,
    QueueTargets,
    list_same_class,
    same_class,
)
from mmunimoco.models.labels import SampleLabels


def draw_labels(n, classes, unlabeled, generator):
    labels = torch.randint(classes, (n,), generator=generator)
    drawn = torch.rand(n, generator=generator)
    return labels.masked_fill(drawn < unlabeled, -1)


def marked(pairs, n, m):
    """The pairs as a matrix."""
    matrix = torch.zeros(n, m, dtype=torch.bool)
    matrix[pairs.rows, pairs.columns] = True
    return matrix


@settings(deadline=None, max_examples=80)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 60),
    classes=st.sampled_from([1, 3, 40, 10**6, 10**12]),
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
    too_many = 32 * int(wanted.sum()) >= n * m
    too_large = int(queries.labels.max()) > LARGEST_LABEL
    assert (pairs is None) == (too_many or too_large)
    if pairs is None:
        return
    assert torch.equal(marked(pairs, n, m), wanted)
    assert len(pairs) == wanted.sum()
    assert torch.equal(pairs.columns, pairs.columns.sort()[0])
    chunks = pairs.split(range(0, m, 7))
    whole = torch.cat([marked(x, n, 7) for x in chunks], dim=1)
    assert torch.equal(whole[:, :m], wanted) and not whole[:, m:].any()
    pairs, order = pairs.by_row()
    assert torch.equal(pairs.rows, pairs.rows.sort()[0])
    assert torch.equal(order.sort()[0], torch.arange(len(pairs)))
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
    targets = QueueTargets(queries, keys, exclude_own_keys=True)
    part = slice(100, 300)
    pairs = targets.pairs(part)
    assert torch.equal(marked(pairs, 16, 200), wanted[:, part])
    assert torch.equal(targets.positives(part), wanted[:, part])
    assert torch.equal(targets.ignored(part), own[:, part])


def test_nothing_is_listed_where_it_does_not_pay():
    keys = SampleLabels(torch.arange(300) % 3)
    whole = slice(0, 300)
    for labels in ([0, 1], [LARGEST_LABEL + 1]):
        queries = SampleLabels(torch.tensor(labels))
        targets = QueueTargets(queries, keys)
        assert targets.pairs(whole) is None
        wanted = queries.labels.unsqueeze(1) == keys.labels
        assert torch.equal(targets.positives(whole), wanted)
    nobody = SampleLabels(torch.tensor([-1]), any_known=False)
    targets = QueueTargets(nobody, keys)
    assert targets.pairs(whole) is None
    assert targets.positives(whole) is None
    assert targets.ignored(whole) is None
