"""The dense form of every loss against references written out by hand."""

import loss_references as ref
import pytest
import torch
from mmpretrain.registry import MODELS
from torch.nn import functional

import mmunimoco  # noqa: F401

LOSSES = {
    'unicon': (dict(type='UniConLoss'), ref.unicon),
    'unicon-mean': (
        dict(type='UniConLoss', positive_reduction='mean'),
        ref.unicon_mean,
    ),
    'supcon-out': (dict(type='SupConLoss'), ref.supcon_out),
    'supcon-in': (
        dict(type='SupConLoss', reduction_position='in'),
        ref.supcon_in,
    ),
    'info-nce': (dict(type='InfoNCELoss'), ref.info_nce),
    'unicon-own-half': (
        dict(type='UniConLoss', own_key_weight=0.5),
        ref.own_weighted('unicon', 0.5),
    ),
    'unicon-mean-own-7': (
        dict(type='UniConLoss', positive_reduction='mean', own_key_weight=7),
        ref.own_weighted('unicon-mean', 7),
    ),
    'supcon-out-own-7': (
        dict(type='SupConLoss', own_key_weight=7),
        ref.own_weighted('supcon-out', 7),
    ),
    'supcon-in-own-tenth': (
        dict(type='SupConLoss', reduction_position='in', own_key_weight=0.1),
        ref.own_weighted('supcon-in', 0.1),
    ),
    'unicon-balanced': (
        dict(type='UniConLoss', own_key_weight='balanced'),
        ref.own_weighted('unicon', 'balanced'),
    ),
    'supcon-out-balanced': (
        dict(type='SupConLoss', own_key_weight='balanced'),
        ref.own_weighted('supcon-out', 'balanced'),
    ),
    'supcon-in-balanced': (
        dict(
            type='SupConLoss',
            reduction_position='in',
            own_key_weight='balanced',
        ),
        ref.own_weighted('supcon-in', 'balanced'),
    ),
}


def pairs(n=5, m=40, tau=0.2, share=0.3, dtype=torch.float64, seed=0):
    """Logits of random cosines, and positives with column 0 set."""
    generator = torch.Generator().manual_seed(seed)
    cosines = 2 * torch.rand(n, m, generator=generator, dtype=dtype) - 1
    positives = torch.rand(n, m, generator=generator) < share
    positives[:, 0] = True
    return cosines / tau, positives


@pytest.mark.parametrize('tau', [1.0, 0.2, 0.07, 0.01])
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
@pytest.mark.parametrize('name', LOSSES)
def test_value_equals_slow_reference(name, dtype, tolerance, tau):
    config, reference = LOSSES[name]
    logits, positives = pairs(tau=tau, dtype=dtype)
    wanted = ref.batch_mean(reference, logits, positives)
    loss = MODELS.build(config)(logits, positives)
    assert loss.shape == () and loss.dtype == dtype
    assert loss.item() == pytest.approx(wanted, rel=tolerance)


@pytest.mark.parametrize('name', LOSSES)
def test_gradcheck(name):
    logits, positives = pairs(n=3, m=8)
    loss = MODELS.build(LOSSES[name][0])
    assert torch.autograd.gradcheck(
        lambda x: loss(x, positives), logits.requires_grad_()
    )


@pytest.mark.parametrize('tau', [1.0, 0.2, 0.01])
def test_unicon_gradient_equals_closed_form(tau):
    logits, positives = pairs(tau=tau)
    loss = MODELS.build(dict(type='UniConLoss'))
    (gradient,) = torch.autograd.grad(
        loss(logits.requires_grad_(), positives), logits
    )
    wanted = torch.tensor(
        [
            [float(x) for x in ref.unicon_gradient(row, mask)]
            for row, mask in zip(
                logits.tolist(), positives.tolist(), strict=True
            )
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(
        gradient * len(logits), wanted, rtol=1e-10, atol=1e-300
    )


def test_unicon_pulls_as_much_as_it_pushes():
    logits, positives = pairs(tau=0.5)
    loss = MODELS.build(dict(type='UniConLoss'))
    (gradient,) = torch.autograd.grad(
        loss(logits.requires_grad_(), positives), logits
    )
    pull = -gradient.masked_fill(~positives, 0).sum(1)
    push = gradient.masked_fill(positives, 0).sum(1)
    torch.testing.assert_close(pull, push)
    assert (push * len(logits) < 1).all()
    assert (gradient[positives] <= 0).all() and (
        gradient[~positives] > 0
    ).all()


def test_supcon_out_pushes_an_easy_positive_away_and_unicon_does_not():
    # One positive far closer than the other: its share of the softmax is
    # larger than 1 / |P|, so L_out lowers its similarity.
    logits = torch.tensor([[5.0, 0.0, -5.0]], requires_grad=True)
    positives = torch.tensor([[True, True, False]])
    gradients = {}
    for name in ('supcon-out', 'unicon'):
        loss = MODELS.build(LOSSES[name][0])(logits, positives)
        (gradients[name],) = torch.autograd.grad(loss, logits)
    assert gradients['supcon-out'][0, 0] > 0
    assert gradients['unicon'][0, 0] < 0


@pytest.mark.parametrize('name', LOSSES)
def test_one_positive_is_info_nce(name):
    logits, positives = pairs(share=0)
    wanted = functional.cross_entropy(
        logits, torch.zeros(len(logits), dtype=torch.long)
    )
    loss = MODELS.build(LOSSES[name][0])(logits, positives)
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)


def test_info_nce_ignores_labels():
    logits, positives = pairs(share=0.5)
    only_own = torch.zeros_like(positives)
    only_own[:, 0] = True
    loss = MODELS.build(dict(type='InfoNCELoss'))
    assert loss(logits, positives) == loss(logits, only_own)


@pytest.mark.parametrize('name', LOSSES)
def test_a_key_at_minus_infinity_is_left_out(name):
    logits, positives = pairs(share=0.2)
    positives[:, -3:] = False
    loss = MODELS.build(LOSSES[name][0])
    wanted = loss(logits[:, :-3], positives[:, :-3])
    logits[:, -3:] = float('-inf')
    torch.testing.assert_close(loss(logits, positives), wanted)


@pytest.mark.parametrize('name', ['unicon', 'unicon-mean', 'info-nce'])
@pytest.mark.parametrize('columns', [1, 4])
def test_no_negatives_no_loss(name, columns):
    logits = torch.randn(3, columns, requires_grad=True)
    positives = torch.ones(3, columns, dtype=torch.bool)
    logits_in = logits[:, :1] if name == 'info-nce' else logits
    positives = positives[:, : logits_in.shape[1]]
    loss = MODELS.build(LOSSES[name][0])(logits_in, positives)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', LOSSES)
def test_half_precision_input_is_computed_in_float32(name, dtype):
    logits, positives = pairs(tau=0.01, dtype=torch.float32)
    logits = logits.to(dtype)
    loss = MODELS.build(LOSSES[name][0])
    value = loss(logits, positives)
    assert value.dtype == torch.float32
    assert value == loss(logits.float(), positives)
    assert value.isfinite()


def test_unicon_keeps_small_and_large_values():
    # exp of these overflows float32, and 1 + 1e-20 is 1.
    positives = torch.tensor([[True, False]])
    loss = MODELS.build(dict(type='UniConLoss'))
    large = loss(torch.tensor([[-100.0, 100.0]]), positives)
    small = loss(torch.tensor([[20.0, -26.0]]), positives)
    assert large.item() == pytest.approx(200.0)
    assert small.item() == pytest.approx(1.0530617357553813e-20, rel=1e-5)


@pytest.mark.parametrize(
    ('logits', 'positives', 'message'),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4).bool(), r'\(N, M\)'),
        (torch.zeros(3), torch.zeros(3).bool(), r'\(N, M\)'),
        (torch.zeros(2, 3), torch.zeros(2, 3), 'bool'),
        (torch.zeros(2, 3).long(), torch.zeros(2, 3).bool(), 'floating'),
    ],
)
def test_wrong_input_is_named(logits, positives, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='UniConLoss'))(logits, positives)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match='positive_reduction'):
        MODELS.build(dict(type='UniConLoss', positive_reduction='max'))
    with pytest.raises(ValueError, match='reduction_position'):
        MODELS.build(dict(type='SupConLoss', reduction_position='middle'))


@pytest.mark.parametrize('kind', ['UniConLoss', 'SupConLoss'])
@pytest.mark.parametrize('others', [0, 1, 2, 5])
def test_balanced_own_key_weighs_as_all_others(kind, others):
    logits, positives = pairs(n=3, m=8)
    positives[:, 1:] = torch.arange(7) < others
    balanced = MODELS.build(dict(type=kind, own_key_weight='balanced'))
    plain = MODELS.build(dict(type=kind, own_key_weight=max(others, 1)))
    torch.testing.assert_close(
        balanced(logits, positives), plain(logits, positives)
    )
    if kind == 'UniConLoss' and others:
        # The same pull where all positives are equally near.
        logits = torch.zeros_like(logits).requires_grad_()
        gradient = torch.autograd.grad(balanced(logits, positives), logits)[0]
        torch.testing.assert_close(
            gradient[:, 0], gradient[:, 1 : 1 + others].sum(dim=1)
        )


@pytest.mark.parametrize(
    'weight', [0, 0.009, -1, True, '2', None, float('nan'), float('inf')]
)
@pytest.mark.parametrize('kind', ['UniConLoss', 'SupConLoss'])
def test_wrong_weight_is_named(kind, weight):
    with pytest.raises(ValueError, match=rf'{kind}\.own_key_weight'):
        MODELS.build(dict(type=kind, own_key_weight=weight))
