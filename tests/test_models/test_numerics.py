"""Losses and head stay finite, whatever is normalised, at any temperature."""

import pytest
import torch
from cpu_autocast import CPU_AUTOCAST
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.registry import MODELS
from small_unimoco import build_unimoco, data_samples, draw_batches
from torch.nn import functional

import mmunimoco  # noqa: F401

LOSSES = {
    'unicon': dict(type='UniConLoss'),
    'unicon-mean': dict(type='UniConLoss', positive_reduction='mean'),
    'supcon-out': dict(type='SupConLoss'),
    'supcon-in': dict(type='SupConLoss', reduction_position='in'),
    'info-nce': dict(type='InfoNCELoss'),
}
DTYPES = {
    'float32': torch.float32,
    'float16': torch.float16,
    'bfloat16': torch.bfloat16,
}
DIM, CLASSES = 4, 3
# bfloat16 keeps eight bits: what was normalised in it is longer than 1.
ROUNDING = 1.05

# Where keys lie relative to the queries.
PLACES = st.sampled_from(['anywhere', 'equal', 'opposite', 'both', 'alike'])
LABELS = st.sampled_from(['none', 'all', 'one class', 'some'])
TEMPERATURE = st.one_of(st.sampled_from([0.01, 1.0]), st.floats(0.01, 1.0))
PROBLEM = dict(
    loss=st.sampled_from(sorted(LOSSES)),
    dtype=st.sampled_from(sorted(DTYPES)),
    tau=TEMPERATURE,
    positive_tau=st.one_of(st.none(), TEMPERATURE),
    n=st.integers(1, 5),
    k=st.sampled_from([1, 2, 9, 40, 3000]),
    own=PLACES,
    others=PLACES,
    query_labels=LABELS,
    key_labels=LABELS,
    seed=st.integers(0, 10**6),
)


def unit(*shape):
    return functional.normalize(torch.randn(*shape), dim=-1)


def place(where, query, count):
    """Keys (count, C) at a place relative to the queries (N, C)."""
    near = query.detach()[torch.arange(count) % len(query)]
    if where == 'anywhere':
        return unit(count, DIM)
    if where == 'alike':
        return unit(1, DIM).expand(count, DIM).clone()
    if where == 'both':
        near = near * (1 - 2 * (torch.rand(count, 1) < 0.5).float())
    return -near if where == 'opposite' else near


def draw_labels(which, count):
    labels = torch.randint(CLASSES, (count,))
    if which == 'none':
        labels[:] = -1
    elif which == 'one class':
        labels[:] = 0
    elif which == 'some':
        labels[torch.rand(count) < 0.5] = -1
    return labels


class Problem:
    """Queries, own keys, a queue, and labels of both."""

    def __init__(self, options):
        torch.manual_seed(options['seed'])
        dtype, n, k = DTYPES[options['dtype']], options['n'], options['k']
        self.tau = options['tau']
        self.positive_tau = options['positive_tau'] or self.tau
        query = unit(n, DIM)
        self.key = place(options['own'], query, n).to(dtype)
        self.queue = place(options['others'], query, k)
        self.query = query.to(dtype).requires_grad_()
        self.labels = draw_labels(options['query_labels'], n)
        self.key_labels = draw_labels(options['key_labels'], k)

    def head(self, **options):
        """A head with this queue."""
        head = MODELS.build(
            dict(
                type='UniMoCoHead',
                feat_dim=DIM,
                queue_len=len(self.queue),
                temperature=self.tau,
                **options,
            )
        )
        head.queue.copy_(self.queue)
        head.label_queue.copy_(self.key_labels)
        return head

    def check(self, loss):
        """Finite, not negative, and no steeper than the formula can be."""
        assert loss.dtype == torch.float32 and loss.dim() == 0
        tau = min(self.tau, self.positive_tau)
        keys = len(self.queue) + len(self.query)
        ceiling = 2 * ROUNDING / tau + 2 * torch.tensor(1.0 + keys).log()
        assert -1e-4 <= loss.item() <= ceiling
        (gradient,) = torch.autograd.grad(loss, self.query)
        assert gradient.dtype == self.query.dtype
        assert gradient.isfinite().all()
        steepest = gradient.float().norm(dim=1).max()
        assert steepest <= 2 * ROUNDING / tau / len(self.query) + 1e-6


@settings(max_examples=120)
@given(
    streamed=st.booleans(),
    in_batch=st.booleans(),
    ignore=st.booleans(),
    autocast=st.booleans(),
    **PROBLEM,
)
def test_head_is_finite(streamed, in_batch, ignore, autocast, **options):
    problem = Problem(options)
    head = problem.head(
        loss=LOSSES[options['loss']],
        positive_temperature=problem.positive_tau,
        in_batch_positives=in_batch,
        ignore_unlabeled_keys=ignore,
        streamed=streamed,
    )
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        values = head.loss(problem.query, problem.key, problem.labels)
    problem.check(values.pop('loss'))
    for name, value in values.items():
        assert value.isfinite(), name
    assert head.queue.isfinite().all()


@settings(max_examples=120)
@given(**PROBLEM)
def test_dense_loss_is_finite(**options):
    """The contract (logits, positives), with logits of the dtype itself."""
    problem = Problem(options)
    keys = problem.queue.to(problem.query.dtype)
    own = (problem.query * problem.key).sum(1, keepdim=True)
    # On a CPU torch 2.1 has no product of float16 matrices.
    others = (problem.query.double() @ keys.double().T).to(keys.dtype)
    similarity = torch.cat([own, others], dim=1)
    positives = problem.labels[:, None] == problem.key_labels
    positives &= problem.labels[:, None] >= 0
    positives = torch.cat([torch.ones_like(own).bool(), positives], dim=1)
    logits = torch.where(
        positives, similarity / problem.positive_tau, similarity / problem.tau
    )
    loss = MODELS.build(LOSSES[options['loss']])(logits, positives)
    problem.check(loss)


@settings(max_examples=40)
@given(bad=st.sampled_from(['query', 'key', 'queue']), **PROBLEM)
def test_what_is_not_finite_shows_in_loss_and_gradient(bad, **options):
    """Or a step would take it for a small loss and learn from it."""
    problem = Problem(options)
    head = problem.head(loss=LOSSES[options['loss']])
    target = dict(query=problem.query, key=problem.key, queue=head.queue)[bad]
    with torch.no_grad():
        target[0, 0] = float('nan')
    loss = head.loss(problem.query, problem.key, problem.labels)['loss']
    assert loss.isnan()
    (gradient,) = torch.autograd.grad(loss, problem.query)
    assert not gradient.isfinite().all()


@pytest.mark.parametrize('dtype', CPU_AUTOCAST)
@pytest.mark.parametrize('loss', sorted(LOSSES))
def test_steps_with_autocast_and_gradient_scaler(loss, dtype):
    """The scaler finds its scale, and weights move and stay finite."""
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('this torch has no GradScaler for a CPU')
    model = build_unimoco(num_classes=3, temperature=0.01, loss=LOSSES[loss])
    optimizer = torch.optim.SGD(model.backbone.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler('cpu')
    before = [p.detach().clone() for p in model.backbone.parameters()]
    for views, labels in draw_batches(12, n=4):
        with torch.autocast('cpu', dtype=dtype):
            value = model(views, data_samples(labels), mode='loss')['loss']
        assert value.isfinite()
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
    # Halved from 65536 for each step that it skipped.
    assert scaler.get_scale() >= 2**7
    after = list(model.backbone.parameters())
    assert all(p.isfinite().all() for p in after)
    moved = [
        not torch.equal(*pair) for pair in zip(before, after, strict=True)
    ]
    assert any(moved)
