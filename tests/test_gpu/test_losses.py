"""Value and gradient of every loss, in every precision, against float64."""

from functools import cache

import loss_references as slow
import pytest
import torch
from float64_losses import LOSSES, value_and_gradient
from matrix_targets import MatrixTargets
from mmpretrain.registry import MODELS
from torch.nn import functional

from mmunimoco.models.pair_statistics import KeyBlock, streamed_statistics

TEMPERATURES = [1.0, 0.2, 0.07, 0.01]
QUEUE_LENGTHS = [1, 1000, 65536]
DIM = 64
# As GradScaler does: keeps the small gradients of fp16 normal numbers.
SCALE = 2.0**10

# Largest relative error of value and gradient (in the norm). A gradient comes
# back in the dtype of its input and is rounded to it.
TOLERANCES = {
    torch.float32: (1e-5, 1e-5),
    torch.float16: (1e-5, 1e-3),
    torch.bfloat16: (1e-5, 5e-3),
}
half_and_full = pytest.mark.parametrize(
    'dtype', TOLERANCES, ids=['float32', 'float16', 'bfloat16']
)


@cache
class Problem:
    """Queries, own keys, queue and positives, rounded to the dtype."""

    def __init__(self, queue_len, device, dtype):
        generator = torch.Generator().manual_seed(queue_len)
        n = 32 if device.type == 'cuda' else 4

        def draw(rows):
            return torch.randn(rows, DIM, generator=generator).double()

        query = functional.normalize(draw(n), dim=1)
        # Hardly nearer than others: easy positives leave a loss of nothing.
        key = functional.normalize(query + draw(n), dim=1)
        keys = functional.normalize(draw(queue_len), dim=1)
        self.query, self.key, self.keys = (
            x.to(dtype).to(device) for x in (query, key, keys)
        )
        share = torch.rand(n, queue_len, generator=generator)
        self.others = (share < 1e-2).to(device)
        own = torch.ones(n, 1, dtype=torch.bool, device=device)
        self.positives = torch.cat([own, self.others], dim=1)

    def logits(self, query, tau):
        """Float64 logits (N, 1 + K) on the CPU."""
        key, keys = self.key.double().cpu(), self.keys.double().cpu()
        own = (query * key).sum(dim=1, keepdim=True)
        return torch.cat([own, query @ keys.T], dim=1) / tau


def errors(value, gradient, wanted):
    """Relative errors of the value, and of the gradient in the norm."""
    wanted_value, wanted_gradient = wanted
    assert gradient.isfinite().all()
    # Below its smallest normal number a dtype is not accurate.
    lost = torch.finfo(gradient.dtype).tiny / SCALE
    lost *= gradient.numel() ** 0.5
    distance = (gradient.double().cpu() / SCALE - wanted_gradient).norm()
    return (
        abs(value.item() / wanted_value.item() - 1),
        max(distance.item() - lost, 0) / wanted_gradient.norm().item(),
    )


def check(found, dtype, record_property):
    """Compare the worst error with what is allowed; keep it for the report."""
    names = ('value_error', 'gradient_error')
    for name, limit, values in zip(
        names, TOLERANCES[dtype], zip(*found, strict=True), strict=True
    ):
        record_property(name, f'{max(values):.2e}')
        assert max(values) <= limit, f'{name} of {values}'


@half_and_full
@pytest.mark.parametrize('name', LOSSES)
def test_dense(name, dtype, device, autocast, record_property):
    config, formula = LOSSES[name]
    loss, found = MODELS.build(config), []
    for queue_len in QUEUE_LENGTHS:
        problem = Problem(queue_len, device, torch.float64)
        for tau in TEMPERATURES:
            exact = problem.logits(problem.query.cpu(), tau)
            logits = exact.to(dtype).to(device).requires_grad_()
            wanted = value_and_gradient(
                formula, logits, lambda x: x, problem.positives
            )
            with autocast(dtype):
                value = loss(logits, problem.positives)
            assert value.dtype == torch.float32
            assert value.device.type == device.type
            (gradient,) = torch.autograd.grad(value * SCALE, logits)
            found.append(errors(value, gradient, wanted))
    check(found, dtype, record_property)


@half_and_full
@pytest.mark.parametrize('chunk_size', [None, 10000], ids=['auto', 'chunks'])
@pytest.mark.parametrize('name', LOSSES)
def test_streamed(name, chunk_size, dtype, device, autocast, record_property):
    config, formula = LOSSES[name]
    loss, found = MODELS.build(config), []
    for queue_len in QUEUE_LENGTHS:
        problem = Problem(queue_len, device, dtype)
        for tau in TEMPERATURES:
            wanted = streamed_wanted(formula, problem, tau)
            query = problem.query.clone().requires_grad_()
            with autocast(dtype):
                value = streamed(loss, problem, query, tau, chunk_size)
            assert value.dtype == torch.float32
            (gradient,) = torch.autograd.grad(value * SCALE, query)
            found.append(errors(value, gradient, wanted))
    check(found, dtype, record_property)


@cache
def streamed_wanted(formula, problem, tau):
    """Exact value and gradient by the query; the same however chunked."""
    return value_and_gradient(
        formula,
        problem.query,
        lambda query: problem.logits(query, tau),
        problem.positives,
    )


def streamed(loss, problem, query, tau, chunk_size):
    """Mean loss over the streamed statistics."""
    targets = MatrixTargets(problem.others if loss.uses_labels else None)
    statistics, _ = streamed_statistics(
        query,
        problem.key,
        [KeyBlock(problem.keys, targets)],
        tau,
        statistics=loss.statistics,
        chunk_size=chunk_size,
    )
    return loss.from_statistics(statistics).mean()


def test_unicon_keeps_small_and_large_values(device):
    # exp of these overflows float32, and 1 + 1e-20 is 1.
    positives = torch.tensor([[True, False]], device=device)
    loss = MODELS.build(dict(type='UniConLoss'))
    large = loss(torch.tensor([[-100.0, 100.0]], device=device), positives)
    small = loss(torch.tensor([[20.0, -26.0]], device=device), positives)
    assert large.item() == pytest.approx(200.0)
    assert small.item() == pytest.approx(1.0530617357553813e-20, rel=1e-5)


@pytest.mark.parametrize('name', LOSSES)
def test_the_reference_itself(name):
    references = {
        'unicon': slow.unicon,
        'unicon-mean': slow.unicon_mean,
        'supcon-out': slow.supcon_out,
        'supcon-in': slow.supcon_in,
        'info-nce': slow.info_nce,
    }
    problem = Problem(200, torch.device('cpu'), torch.float64)
    logits = problem.logits(problem.query, 0.05)
    wanted = slow.batch_mean(references[name], logits, problem.positives)
    value = LOSSES[name][1](logits, problem.positives).mean()
    assert value.item() == pytest.approx(wanted, rel=1e-12)
