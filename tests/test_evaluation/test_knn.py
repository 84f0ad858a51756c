import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from mmunimoco.evaluation.knn import knn_neighbours, topk_neighbours, vote


def _data(queries=37, bank=211, dims=16, classes=7, seed=0):
    rng = np.random.default_rng(seed)

    def rows(n):
        x = rng.normal(size=(n, dims))
        return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))

    labels = torch.from_numpy(rng.integers(0, classes, bank))
    return rows(queries), rows(bank), labels, classes


def _brute_force(queries, bank, labels, classes, k, temperature):
    """Votes exp(cos / temperature), one query and one neighbour at a time."""
    queries, bank, labels = queries.numpy(), bank.numpy(), labels.numpy()
    scores = np.zeros((len(queries), classes))
    for i, query in enumerate(queries):
        cosine = [float(np.dot(query, entry)) for entry in bank]
        for j in sorted(range(len(bank)), key=lambda j: -cosine[j])[:k]:
            scores[i, labels[j]] += np.exp(cosine[j] / temperature)
    return scores / scores.sum(axis=1, keepdims=True)


def _scores(queries, bank, labels, classes, k, temperature, *chunks):
    nearest = knn_neighbours(queries, bank, labels, k, *chunks)
    return vote(*nearest, classes, temperature).numpy()


@pytest.mark.parametrize('temperature', [0.02, 0.07, 1.0])
@pytest.mark.parametrize('chunks', [(4096, 65536), (5, 13), (1, 1)])
def test_scores_equal_brute_force(temperature, chunks):
    data = _data()
    for k in (1, 20, 211):
        got = _scores(*data, k, temperature, *chunks)
        expected = _brute_force(*data, k, temperature)
        np.testing.assert_allclose(got, expected, atol=1e-9)


@pytest.mark.parametrize('k', [1, 10, 50])
def test_scores_equal_scikit_learn(k):
    queries, bank, labels, classes = _data(seed=1)
    model = KNeighborsClassifier(
        k,
        metric='cosine',
        algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / 0.07),
    ).fit(bank.numpy(), labels.numpy())
    expected = model.predict_proba(queries.numpy())
    got = _scores(queries.float(), bank.float(), labels, classes, k, 0.07)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    got = _scores(queries, bank, labels, classes, k, 0.07)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_half_precision_bank():
    queries, bank, labels, classes = _data()
    queries, half = queries.float(), bank.half()
    similarities, rows = topk_neighbours(queries, half, 5, bank_chunk=50)
    expected = (queries @ half.float().T).topk(5, dim=1)
    torch.testing.assert_close(similarities, expected.values)
    assert torch.equal(rows, expected.indices)


def test_bank_smaller_than_k():
    similarities, rows = topk_neighbours(torch.eye(3), torch.eye(3)[:2], 4)
    assert (rows[:, 2:] == -1).all()
    assert torch.isinf(similarities[:, 2:]).all()
    scores = vote(similarities, rows.clamp(min=0), 2, 0.1)
    torch.testing.assert_close(scores.sum(1), torch.ones(3))
    empty = topk_neighbours(torch.eye(3), torch.empty(0, 3), 2)
    assert (empty[1] == -1).all()


def test_extreme_temperatures_do_not_overflow():
    queries, bank, labels, classes = _data()
    for temperature in (1e-4, 1e4):
        scores = _scores(
            queries.float(), bank.float(), labels, classes, 9, temperature
        )
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)


def test_memory_is_limited_to_a_chunk(monkeypatch):
    """No product larger than a chunk of queries by a chunk of the bank."""
    largest = 0
    original = torch.Tensor.__matmul__

    def watched(self, other):
        nonlocal largest
        result = original(self, other)
        largest = max(largest, result.numel())
        return result

    monkeypatch.setattr(torch.Tensor, '__matmul__', watched)
    topk_neighbours(torch.rand(100, 4), torch.rand(1000, 4), 3, 10, 50)
    assert largest == 10 * 50


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(k=300), 'k=.* asks for 300 .* only 211'),
        (dict(k=0), 'k must contain'),
        (dict(temperature=0.0), 'temperature'),
        (dict(bank_chunk=0), 'bank_chunk'),
        (dict(queries=torch.ones(2, 3)), 'same D'),
    ],
)
def test_invalid_argument(change, message):
    queries, bank, labels, classes = _data()
    arguments = dict(queries=queries, bank=bank, bank_labels=labels, k=5)
    arguments |= dict(temperature=0.07) | change
    temperature = arguments.pop('temperature')
    with pytest.raises(ValueError, match=message):
        vote(*knn_neighbours(**arguments), classes, temperature)
