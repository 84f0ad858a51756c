"""Streamed statistics against the dense ones, from labels and indices."""

from dataclasses import replace

import pytest
import torch
from cpu_autocast import CPU_AUTOCAST
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from mmunimoco.models import InfoNCELoss, SupConLoss, UniConLoss
from mmunimoco.models import pair_statistics as module
from mmunimoco.models.labels import KeyBlock, SampleLabels
from mmunimoco.models.pair_statistics import dense_monitor, streamed_statistics

LOSSES = {
    'unicon': UniConLoss(),
    'unicon-mean': UniConLoss('mean'),
    'supcon-out': SupConLoss('out'),
    'supcon-in': SupConLoss('in'),
    'info-nce': InfoNCELoss(),
}
every_loss = pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)


class Problem:
    """Random queries and keys with labels, some keys of the query's image."""

    def __init__(
        self, n, m, dim=8, classes=10, dtype=torch.float64, seed=0, own=True
    ):
        torch.manual_seed(seed)
        self.query, self.key, self.keys = (
            functional.normalize(torch.randn(rows, dim, dtype=dtype), dim=1)
            for rows in (n, n, m)
        )
        self.query.requires_grad_()
        # An eleventh of the samples is unlabeled; 0 classes: all are.
        query_labels, key_labels = (
            SampleLabels(
                torch.randint(-1, classes, (rows,))
                if classes
                else torch.full((rows,), -1),
                torch.randint(10, (rows,)),
                has_labels=classes > 0,
            )
            for rows in (n, m)
        )
        self.block = KeyBlock(
            self.keys, key_labels, query_labels, exclude_own=own
        )

    def streamed(self, loss, tau, positive_tau=None, **kwargs):
        block = self.block
        if not loss.uses_labels:
            samples = replace(block.query_labels, has_labels=False)
            block = replace(block, query_labels=samples)
        statistics, monitor = streamed_statistics(
            self.query,
            self.key,
            [block],
            tau,
            positive_tau,
            loss.statistics,
            **kwargs,
        )
        return loss.from_statistics(statistics).mean(), monitor

    def masks(self, loss):
        """Positives and ignored keys, own key first, written out."""
        queries, keys = self.block.query_labels, self.block.key_labels
        own = queries.indices[:, None] == keys.indices
        own &= torch.tensor(self.block.exclude_own)
        same = queries.labels[:, None] == keys.labels
        same &= (queries.labels >= 0)[:, None] & ~own
        same &= torch.tensor(loss.uses_labels)
        first = torch.ones(len(same), 1, dtype=torch.bool)
        return torch.cat([first, same], 1), torch.cat([~first, own], 1)

    def dense(self, loss, tau, positive_tau=None):
        own = (self.query * self.key).sum(1, keepdim=True)
        similarity = torch.cat([own, self.query @ self.keys.T], 1)
        positives, ignored = self.masks(loss)
        logits = torch.where(
            positives, similarity / (positive_tau or tau), similarity / tau
        ).masked_fill(ignored, float('-inf'))
        monitor = dense_monitor(similarity, positives, ignored)
        return loss(logits, positives), monitor

    def gradient(self, loss):
        return torch.autograd.grad(loss, self.query)[0]


def assert_same(problem, streamed, dense, tolerance):
    (loss, monitor), (wanted, wanted_monitor) = streamed, dense
    assert loss.item() == pytest.approx(wanted.item(), rel=tolerance)
    gradient, wanted = problem.gradient(loss), problem.gradient(wanted)
    error = (gradient - wanted).norm()
    assert error <= tolerance * wanted.norm() + 1e-30
    for name, value in vars(wanted_monitor).items():
        torch.testing.assert_close(
            getattr(monitor, name), value, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize('tau', [1.0, 0.2, 0.01])
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
# Few positives (100 classes) are listed on a CPU, many (2) are masked.
@pytest.mark.parametrize('classes', [0, 2, 100])
@every_loss
def test_equals_dense(loss, classes, dtype, tolerance, tau):
    problem = Problem(7, 300, classes=classes, dtype=dtype)
    streamed = problem.streamed(loss, tau, chunk_size=64)
    assert_same(problem, streamed, problem.dense(loss, tau), tolerance)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 70),
    chunk=st.integers(1, 80),
    own=st.booleans(),
    classes=st.sampled_from([0, 1, 3, 50]),
    tau=st.floats(0.01, 1.0),
    positive_tau=st.floats(0.01, 1.0),
    loss=st.sampled_from(list(LOSSES.values())),
    seed=st.integers(0, 10**6),
)
def test_equals_dense_for_any_shape(
    n, m, chunk, own, classes, tau, positive_tau, loss, seed
):
    problem = Problem(n, m, classes=classes, seed=seed, own=own)
    streamed = problem.streamed(loss, tau, positive_tau, chunk_size=chunk)
    dense = problem.dense(loss, tau, positive_tau)
    assert_same(problem, streamed, dense, 1e-9)


@every_loss
def test_gradcheck(loss):
    problem = Problem(3, 12, dim=4, classes=3)

    def function(query):
        problem.query = query
        return problem.streamed(loss, 0.3, chunk_size=5)[0]

    assert torch.autograd.gradcheck(function, problem.query)
    # A second derivative would lack what depends on the softmax weights.
    slope = torch.autograd.grad(
        function(problem.query), problem.query, create_graph=True
    )[0]
    with pytest.raises(RuntimeError, match='twice'):
        slope.norm().backward()


@pytest.mark.parametrize('dtype', CPU_AUTOCAST)
@every_loss
def test_autocast_does_not_change_the_result(loss, dtype):
    problem = Problem(6, 200, dtype=torch.float32)
    wanted = problem.streamed(loss, 0.01)[0]
    with torch.autocast('cpu', dtype=dtype):
        value = problem.streamed(loss, 0.01)[0]
    assert value.dtype == torch.float32 and value.isfinite()
    assert value.item() == wanted.item()
    assert torch.equal(problem.gradient(value), problem.gradient(wanted))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_query_is_computed_in_float32(dtype):
    problem, loss = Problem(6, 200, dtype=torch.float32), UniConLoss()
    problem.query = problem.query.detach().to(dtype).requires_grad_()
    value = problem.streamed(loss, 0.05)[0]
    gradient = problem.gradient(value)
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    problem.query = problem.query.detach().float().requires_grad_()
    wanted = problem.dense(loss, 0.05)[0]
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(
        gradient, problem.gradient(wanted).to(dtype), rtol=1e-2, atol=1e-6
    )


def test_rows_without_negatives_have_no_loss_and_no_gradient():
    problem = Problem(4, 20, classes=2)
    queries, keys = problem.block.query_labels, problem.block.key_labels
    # Every key is a positive of query 0 and of the image of query 1.
    keys.labels[:], keys.indices[:] = 0, 50
    queries.labels[:] = torch.tensor([0, 1, 1, -1])
    queries.indices[:] = torch.tensor([1, 50, 2, 3])
    value, monitor = problem.streamed(UniConLoss(), 0.2, chunk_size=7)
    gradient = problem.gradient(value)
    assert value.isfinite() and torch.equal(gradient[:2], gradient[:2] * 0)
    assert (gradient[2:].norm(dim=1) > 0).all()
    assert monitor.num_negatives.tolist() == [0, 0, 20, 20]
    none = monitor.nearest_negative.isneginf()
    assert none.tolist() == [True, True, False, False]


@pytest.mark.parametrize('tau', [1.0, 0.2, 0.01])
def test_errors_do_not_add_up_over_a_long_queue(tau):
    """The longest queue in float32 against the dense form in float64."""
    problem = Problem(2, 262144, classes=1000, dtype=torch.float32)
    exact = Problem(2, 262144, classes=1000, dtype=torch.float32)
    exact.query = problem.query.detach().double().requires_grad_()
    exact.key, exact.keys = problem.key.double(), problem.keys.double()
    value = problem.streamed(UniConLoss(), tau)[0]
    wanted = exact.dense(UniConLoss(), tau)[0]
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    gradient = exact.gradient(wanted)
    error = (problem.gradient(value) - gradient).norm()
    assert error <= 1e-5 * gradient.norm()


class _LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest new tensor."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        # A view of the queue is not new.
        given = {_storage(x) for x in args if isinstance(x, torch.Tensor)}
        for x in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(x, torch.Tensor) and _storage(x) not in given:
                self.elements = max(self.elements, x.numel())
        return out


def _storage(x):
    return x.untyped_storage().data_ptr()


@pytest.mark.parametrize('sparse', [1, 32, 10**9])
def test_no_matrix_of_queries_times_keys_is_made(sparse, monkeypatch):
    """Whether all positives are listed, or none."""
    monkeypatch.setattr(module, 'SPARSE', sparse)
    n, dim, chunk = 16, 8, 128
    for m in (1024, 4096):
        problem = Problem(n, m, dim, classes=4)
        with _LargestTensor() as largest:
            value = problem.streamed(UniConLoss(), 0.2, chunk_size=chunk)[0]
            problem.gradient(value)
        # Listed pairs gather their keys: here up to 40 % of n * chunk pairs.
        limit = n * chunk * (dim if sparse == 1 else 1)
        assert largest.elements <= limit
        assert m < 4096 or limit < n * m
