"""The streamed statistics against the dense ones."""

import pytest
import torch
from cpu_autocast import CPU_AUTOCAST
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_targets import MatrixTargets
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.peak_memory import peak_extra_bytes
from mmunimoco.models import pair_statistics as streamed_module
from mmunimoco.models.info_nce_loss import InfoNCELoss
from mmunimoco.models.monitor import PairMonitor
from mmunimoco.models.pair_statistics import KeyBlock, streamed_statistics
from mmunimoco.models.supcon_loss import SupConLoss
from mmunimoco.models.unicon_loss import UniConLoss

LOSSES = [
    UniConLoss(),
    UniConLoss('mean'),
    SupConLoss('out'),
    SupConLoss('in'),
    InfoNCELoss(),
]
NAMES = ['unicon', 'unicon-mean', 'supcon-out', 'supcon-in', 'info-nce']


class Problem:
    """Random queries, keys and targets, some of them ignored or none."""

    def __init__(
        self,
        n,
        m,
        dim=8,
        share=0.1,
        dtype=torch.float64,
        seed=0,
        ignores=True,
    ):
        torch.manual_seed(seed)
        self.query, self.key, self.keys = (
            functional.normalize(torch.randn(rows, dim, dtype=dtype), dim=1)
            for rows in (n, n, m)
        )
        self.query.requires_grad_()
        draw = torch.rand(n, m)
        self.positives = draw < share
        self.ignored = draw > (0.9 if ignores else 1.0)
        self.ignores = ignores

    def blocks(self, splits=1, listed=False):
        """The keys as one block or several."""
        width = -(-len(self.keys) // splits)
        parts = [
            slice(start, start + width)
            for start in range(0, len(self.keys), width)
        ]
        return [
            KeyBlock(
                self.keys[part],
                MatrixTargets(
                    self.positives[:, part],
                    self.ignored[:, part] if self.ignores else None,
                    listed,
                ),
            )
            for part in parts
        ]

    def streamed(self, loss, tau, positive_tau=None, **kwargs):
        blocks = self.blocks(
            kwargs.pop('splits', 1), kwargs.pop('listed', False)
        )
        if not loss.uses_labels:
            ignored = self.ignored if self.ignores else None
            targets = MatrixTargets(ignored=ignored)
            blocks = [KeyBlock(self.keys, targets)]
        statistics, monitor = streamed_statistics(
            self.query,
            self.key,
            blocks,
            tau,
            positive_tau,
            loss.statistics,
            **kwargs,
        )
        return loss.from_statistics(statistics).mean(), monitor

    def dense(self, loss, tau, positive_tau=None):
        own = (self.query * self.key).sum(1, keepdim=True)
        similarity = torch.cat([own, self.query @ self.keys.T], 1)
        first = torch.ones_like(own).bool()
        positives = torch.cat([first, self.positives], 1)
        ignored = torch.cat([~first, self.ignored], 1)
        if not loss.uses_labels:
            positives[:, 1:] = False
        logits = torch.where(
            positives, similarity / (positive_tau or tau), similarity / tau
        ).masked_fill(ignored, float('-inf'))
        monitor = PairMonitor.from_dense(similarity, positives, ignored)
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
# On a CPU few positives take the sparse path, many the dense one.
@pytest.mark.parametrize('share', [0.0, 0.01, 0.5])
@pytest.mark.parametrize('listed', [False, True])
# Without a mask a CPU has the scores of a key together, if queries are many.
@pytest.mark.parametrize(
    ('n', 'ignores'), [(7, True), (7, False), (64, False)]
)
@pytest.mark.parametrize('loss', LOSSES, ids=NAMES)
def test_equals_dense(loss, n, ignores, listed, share, dtype, tolerance, tau):
    problem = Problem(n, 300, share=share, dtype=dtype, ignores=ignores)
    streamed = problem.streamed(loss, tau, chunk_size=64, listed=listed)
    assert_same(problem, streamed, problem.dense(loss, tau), tolerance)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 70),
    chunk=st.integers(1, 80),
    splits=st.integers(1, 3),
    span=st.integers(1, 400),
    listed=st.booleans(),
    ignores=st.booleans(),
    many=st.integers(1, 9),
    share=st.sampled_from([0.0, 0.02, 0.3, 0.9]),
    tau=st.floats(0.01, 1.0),
    positive_tau=st.floats(0.01, 1.0),
    which=st.integers(0, len(LOSSES) - 1),
    seed=st.integers(0, 10**6),
)
def test_equals_dense_for_any_shape(
    n,
    m,
    chunk,
    splits,
    span,
    listed,
    ignores,
    many,
    share,
    tau,
    positive_tau,
    which,
    seed,
):
    problem = Problem(n, m, share=share, seed=seed, ignores=ignores)
    loss = LOSSES[which]
    options = dict(chunk_size=chunk, splits=splits, listed=listed)
    with pytest.MonkeyPatch.context() as patch:
        # Positives are listed for a span of several chunks, or of one.
        patch.setattr(streamed_module, 'LISTED_ELEMENTS', span)
        patch.setattr(streamed_module, 'MANY_QUERIES', many)
        streamed = problem.streamed(loss, tau, positive_tau, **options)
    assert_same(
        problem, streamed, problem.dense(loss, tau, positive_tau), 1e-9
    )


@pytest.mark.parametrize('loss', LOSSES, ids=NAMES)
def test_gradcheck(loss):
    problem = Problem(3, 12, dim=4, share=0.3)

    def function(query):
        problem.query = query
        return problem.streamed(loss, 0.3, chunk_size=5)[0]

    assert torch.autograd.gradcheck(function, problem.query)


@pytest.mark.parametrize('dtype', CPU_AUTOCAST)
@pytest.mark.parametrize('tau', [1.0, 0.2, 0.01])
@pytest.mark.parametrize('loss', LOSSES, ids=NAMES)
def test_autocast_does_not_change_the_result(loss, tau, dtype):
    problem = Problem(6, 200, share=0.05, dtype=torch.float32)
    wanted = problem.streamed(loss, tau)[0]
    with torch.autocast('cpu', dtype=dtype):
        value = problem.streamed(loss, tau)[0]
    assert value.dtype == torch.float32 and value.isfinite()
    assert value.item() == wanted.item()
    assert torch.equal(problem.gradient(value), problem.gradient(wanted))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_query_is_computed_in_float32(dtype):
    problem = Problem(6, 200, dtype=torch.float32)
    problem.query = problem.query.detach().to(dtype).requires_grad_()
    value = problem.streamed(LOSSES[0], 0.05)[0]
    gradient = problem.gradient(value)
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    problem.query = problem.query.detach().float().requires_grad_()
    wanted = problem.dense(LOSSES[0], 0.05)[0]
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(
        gradient, problem.gradient(wanted).to(dtype), rtol=1e-2, atol=1e-6
    )


def test_rows_without_negatives_have_no_loss_and_no_gradient():
    problem = Problem(4, 20)
    problem.positives[0], problem.ignored[0] = True, False
    problem.positives[1], problem.ignored[1] = False, True
    value, monitor = problem.streamed(UniConLoss(), 0.2, chunk_size=7)
    gradient = problem.gradient(value)
    assert value.isfinite() and torch.equal(gradient[:2], gradient[:2] * 0)
    assert (gradient[2:].norm(dim=1) > 0).all()
    assert monitor.num_negatives[:2].tolist() == [0, 0]


@pytest.mark.parametrize('tau', [1.0, 0.2, 0.01])
def test_longest_queue_in_float32(tau):
    """Against the dense form in float64: nothing adds up over the chunks."""
    problem = Problem(2, 262144, share=1e-3, dtype=torch.float32)
    wanted = Problem(2, 1)
    wanted.query = problem.query.detach().double().requires_grad_()
    wanted.key, wanted.keys = problem.key.double(), problem.keys.double()
    wanted.positives, wanted.ignored = problem.positives, problem.ignored
    value = problem.streamed(UniConLoss(), tau)[0]
    exact = wanted.dense(UniConLoss(), tau)[0]
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    gradient = wanted.gradient(exact)
    error = (problem.gradient(value) - gradient).norm()
    assert error <= 1e-5 * gradient.norm()


class _LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        # A view of the queue makes nothing.
        given = {_storage(x) for x in args if isinstance(x, torch.Tensor)}
        for x in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(x, torch.Tensor) and _storage(x) not in given:
                self.elements = max(self.elements, x.numel())
        return out


def _storage(x):
    return x.untyped_storage().data_ptr()


@pytest.mark.parametrize('listed', [False, True])
@pytest.mark.parametrize('share', [0.0, 0.01, 0.5])
def test_no_matrix_of_queries_times_keys_is_made(share, listed, monkeypatch):
    n, dim, chunk = 16, 8, 128
    # However dense: the positives of one chunk are listed at a time.
    monkeypatch.setattr(streamed_module, 'LISTED_ELEMENTS', n * chunk)
    for m in (1024, 4096):
        problem = Problem(n, m, dim, share)
        with _LargestTensor() as largest:
            value = problem.streamed(
                UniConLoss(), 0.2, chunk_size=chunk, listed=listed
            )[0]
            problem.gradient(value)
        # A pair is a row and a column.
        assert largest.elements <= (2 if listed else 1) * n * chunk


class _Operators(TorchDispatchMode):
    """Counts operators, but for views: what a GPU has to be told."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = [x.alias_info for x in func._schema.returns]
        self.count += not any(x and not x.is_write for x in results)
        return func(*args, **(kwargs or {}))


def test_operators_of_a_chunk_are_few():
    """Each is a kernel that the host has to launch on a GPU."""
    counts = []
    for chunks in (1, 5):
        problem = Problem(16, 64 * chunks, share=0.5, ignores=False)
        with _Operators() as operators:
            problem.streamed(UniConLoss(), 0.2, chunk_size=64)
        counts.append(operators.count)
    assert counts[0] < 100
    assert counts[1] - counts[0] < 4 * 48


@pytest.mark.parametrize('loss', LOSSES, ids=NAMES)
def test_marked_positives_cost_one_more_chunk(loss):
    """As on a GPU, where nothing is listed: scores and one copy of them."""
    n, chunk = 64, 1024
    problem = Problem(n, 4 * chunk, share=0.5, dtype=torch.float32)

    def compute():
        problem.gradient(problem.streamed(loss, 0.2, chunk_size=chunk)[0])

    compute()
    peak = peak_extra_bytes(compute, 'cpu')
    scores = 4 * n * chunk
    assert scores < peak < 2.2 * scores + n * chunk
