"""Labels from neighbours; with the head they are in test_unimoco_head."""

import pytest
import torch
from torch.nn import functional

from mmunimoco.models.label_propagation import LabelPropagation, nearest_labels


def unit(*shape):
    return functional.normalize(torch.randn(*shape), dim=1)


@pytest.mark.parametrize('queue_len', [3, 8192, 8192 + 5, 20000])
def test_nearest_labels_of_any_queue(queue_len):
    """Also one shorter than k, and one read in several chunks."""
    torch.manual_seed(0)
    keys, queue = unit(6, 8), unit(queue_len, 8)
    labels = torch.randint(-1, 1000, (queue_len,))
    labels[1], k = -1, 20
    similarity = (keys @ queue.T)[:, labels >= 0]
    order = similarity.argsort(dim=1, descending=True)[:, :k]
    expected = labels[labels >= 0][order]
    missing = k - expected.shape[1]
    expected = functional.pad(expected, (0, missing), value=-1)
    assert torch.equal(nearest_labels(keys, queue, labels, k), expected)


@pytest.mark.parametrize(
    ('k', 'threshold', 'votes'),
    [(20, 0.9, 18), (25, 0.56, 14), (3, 0.6, 2), (4, 1, 4), (1, 0.51, 1)],
)
def test_fewest_votes(k, threshold, votes):
    """0.56 * 25 is above 14 in floating point."""
    assert LabelPropagation(k, threshold).votes_needed == votes


def test_autocast_does_not_change_the_neighbours():
    torch.manual_seed(0)
    queue = functional.normalize(1 + 0.01 * torch.randn(200, 64), dim=1)
    labels = torch.randint(3, (200,))
    arguments = queue[:50] + 0.001, torch.full((50,), -1), queue, labels
    propagation = LabelPropagation(k=3, threshold=0.6)
    expected = propagation(*arguments)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = propagation(*arguments)
    assert torch.equal(found, expected) and len(expected.unique()) > 2
