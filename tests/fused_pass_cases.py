"""Cases of ``test_triton_kernels.py``, for Triton's interpreter."""

from copy import deepcopy

import pytest
import torch
import triton.language as tl
from mmpretrain.registry import MODELS
from torch.nn import functional
from triton.runtime import interpreter
from triton_cases import nan_where_nothing_was_stored  # noqa: F401

import mmunimoco  # noqa: F401
from mmunimoco.engine.step_options import compile_head
from mmunimoco.models import fused_pass
from mmunimoco.models.labels import KeyBlock, SampleLabels
from mmunimoco.models.pair_statistics import streamed_statistics

# Alike in their last 8 or 32 bits.
CLASSES = torch.tensor([-1, 0, 1, 2**8, 2**32])
ALL = ('positive', 'inverse_positive', 'positive_mean')
CASES = {
    'one query, one key': (1, 1, 16, ALL, {}),
    'nothing is a power of two': (5, 7, 6, ALL, {}),
    'many keys': (1, 65537, 16, ('inverse_positive',), {}),
    'several tiles and splits': (35, 190, 20, ('inverse_positive',), {}),
    'InfoNCE': (20, 40, 8, ('positive',), dict(has_labels=False)),
    'SupCon': (20, 40, 8, ('positive', 'positive_mean'), {}),
    'own keys left out': (20, 40, 8, ALL, dict(exclude_own=True)),
    'unlabeled left out': (20, 40, 8, ALL, dict(ignore_unlabeled=True)),
    'keys of the batch': (20, 40, 8, ALL, dict(own_start=0)),
    'a batch without labels': (
        *(20, 40, 8, ALL),
        dict(has_labels=False, ignore_unlabeled=True, own_start=3),
    ),
    'all options': (
        *(20, 130, 8, ALL),
        dict(exclude_own=True, ignore_unlabeled=True, own_start=3),
    ),
    'no negatives': (3, 40, 8, ALL, dict(one_class=True)),
    'only similarities below zero': (3, 40, 8, ALL, dict(opposite=True)),
}


def unit(*shape):
    return functional.normalize(torch.randn(*shape), dim=1)


def make_blocks(n, k, c, options, dtype):
    """The queue, and with ``own_start`` the keys of the batch."""
    options = dict(options)
    opposite = options.pop('opposite', False)
    first = options.pop('own_start', None)
    has_labels = options.pop('has_labels', True)
    torch.manual_seed(1)
    labels = CLASSES[torch.randint(5, (n,))], CLASSES[torch.randint(5, (k,))]
    if options.pop('one_class', False):
        labels = [x * 0 for x in labels]
    images = torch.randint(-1, 9, (n,)), torch.randint(-1, 9, (k,))
    queries = SampleLabels(labels[0], images[0], has_labels=has_labels)
    keys = SampleLabels(labels[1], images[1])
    queue = -unit(k, c).abs() if opposite else unit(k, c)
    blocks = [KeyBlock(queue.to(dtype), keys, queries, **options)]
    if first is not None:
        batch = unit(n + first, c).to(dtype)
        more = SampleLabels(
            torch.cat([CLASSES[:first], labels[0]]),
            torch.cat([torch.arange(first), images[0]]),
        )
        blocks.append(
            KeyBlock(batch, more, queries, own_start=first, **options)
        )
    return blocks


@pytest.mark.parametrize('name', CASES)
def test_equals_the_plain_loop_in_float64(name):
    assert_equals_the_plain_loop(*CASES[name])


def test_more_splits_than_are_merged_at_a_time(monkeypatch):
    """As on GPUs of many multiprocessors."""
    tile = fused_pass._Tile(16, 16, False, 50)
    monkeypatch.setattr(fused_pass._Tile, 'for_problem', lambda *_: tile)
    assert_equals_the_plain_loop(16, 700, 8, ALL, {})


def assert_equals_the_plain_loop(n, k, c, statistics, options):
    torch.manual_seed(0)
    query, own = unit(n, c), unit(n, c)
    if 'opposite' in options:
        query, own = query.abs(), -own.abs()

    def compute(function, dtype):
        x = query.to(dtype).requires_grad_()
        blocks = make_blocks(n, k, c, options, dtype)
        found, monitor = function(
            x, own.to(dtype), blocks, 0.2, 0.5, statistics
        )
        values = dict(vars(monitor), positives=found.num_positives)
        assert not any(value.requires_grad for value in values.values())
        for field in ('negative', *statistics):
            value = getattr(found, field)
            finite = value.masked_fill(value.isinf(), 0)
            (slope,) = torch.autograd.grad(finite.sum(), x, retain_graph=True)
            values |= {field: value, f'gradient of {field}': slope}
        return values

    expected = compute(streamed_statistics, torch.float64)
    actual = compute(fused_pass.fused_statistics, torch.float32)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            actual[key].double(),
            value.double(),
            rtol=1e-5,
            atol=1e-5,
            msg=lambda text, key=key: f'{key}: {text}',
        )


def test_half_precision_is_computed_in_float32():
    blocks = make_blocks(20, 40, 8, {}, torch.bfloat16)
    # Not contiguous.
    query, own = (unit(8, 20).T.bfloat16() for _ in range(2))
    blocks[0].keys = blocks[0].keys.T.contiguous().T
    arguments = query, own, blocks, 0.2, 0.2, ALL
    expected, _ = streamed_statistics(*arguments)
    actual, _ = fused_pass.fused_statistics(*arguments)
    for name in ('negative', *ALL):
        torch.testing.assert_close(
            getattr(actual, name), getattr(expected, name)
        )


def test_what_the_kernel_leaves_to_the_plain_loop():
    blocks = make_blocks(4, 8, 8, {}, torch.float32)
    assert fused_pass.supports(unit(4, 8), blocks)
    assert not fused_pass.supports(unit(4, 8).double(), blocks)
    assert not fused_pass.supports(unit(4, 257), blocks)
    assert not fused_pass.supports(unit(4, 8), [])
    blocks[0].never_positive = torch.zeros(8, dtype=torch.bool)
    assert not fused_pass.supports(unit(4, 8), blocks)
    blocks[0].never_positive = None
    blocks[0].query_labels.labels = torch.zeros(4, 3, dtype=torch.bool)
    assert not fused_pass.supports(unit(4, 8), blocks)


def test_halves_of_bfloat16_are_nearly_float32(monkeypatch):
    """As GPUs multiply."""
    builder = interpreter.InterpreterBuilder
    plain = builder.create_dot

    def dot(self, a, b, *rest):
        # It would multiply the bits of bfloat16 as integers.
        a, b = (
            x if x.dtype != tl.bfloat16 else self.cast_impl(x, tl.float32)
            for x in (a, b)
        )
        return plain(self, a, b, *rest)

    monkeypatch.setattr(builder, 'create_dot', dot)
    tile = fused_pass._Tile(32, 32, True, 4)
    monkeypatch.setattr(fused_pass._Tile, 'for_problem', lambda *_: tile)
    query, own = unit(8, 64), unit(8, 64)
    results = []
    for function, dtype in (
        (fused_pass.fused_statistics, torch.float32),
        (streamed_statistics, torch.float64),
    ):
        x = query.to(dtype).requires_grad_()
        blocks = make_blocks(8, 200, 64, {}, dtype)
        found, _ = function(x, own.to(dtype), blocks, 0.07, 0.07, ALL)
        fields = {name: getattr(found, name) for name in ('negative', *ALL)}
        slopes = {
            f'gradient of {name}': torch.autograd.grad(
                value.sum(), x, retain_graph=True
            )[0]
            for name, value in fields.items()
        }
        results.append(fields | slopes)
    found, exact = results
    for name, value in exact.items():
        error = (found[name] - value).abs().max()
        # One product of bfloat16 is off by 1e-2. The interpreter truncates
        # where GPUs round.
        assert 0 < error < 2e-4, name


@pytest.mark.parametrize(
    'options',
    [
        dict(label_warmup=3),
        dict(
            in_batch_positives=True,
            ignore_unlabeled_keys=True,
            exclude_own_keys=True,
            loss=dict(type='SupConLoss', own_key_weight='balanced'),
        ),
    ],
    ids=['defaults, once labels have joined', 'all options'],
)
def test_compiled_head(options, monkeypatch):
    """The same loss, log values, gradient and queues, as one graph."""
    head = MODELS.build(
        dict(type='UniMoCoHead', feat_dim=16, queue_len=10, **options)
    )
    compiled = deepcopy(head)
    monkeypatch.setattr(
        compiled, '_choose_pass', lambda *_: fused_pass.fused_statistics
    )
    torch.compiler.reset()  # code is compiled only so many times
    graphs = torch._dynamo.utils.counters['stats']
    before = graphs['unique_graphs']
    compile_head(compiled, backend='aot_eager', fullgraph=True)
    for labels in ([0, 1, -1, 2], [1, 1, 2, 0], [2, -1, 0, 1], [2, -1, 1, 0]):
        query, key = unit(4, 16), unit(4, 16)
        samples = SampleLabels(torch.tensor(labels), torch.arange(4))
        samples.has_unlabeled = -1 in labels
        results = []
        for each in (head, compiled):
            leaf = query.clone().requires_grad_()
            found = each.loss(leaf, key, samples)
            found['loss'].backward()
            results.append(dict(found, gradient=leaf.grad))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled.state_dict(), head.state_dict())
    # With and without unlabeled images; before and while labels join.
    count = graphs['unique_graphs'] - before
    assert count == (4 if 'label_warmup' in options else 2)
