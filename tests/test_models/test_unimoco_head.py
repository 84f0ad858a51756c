"""UniMoCoHead against a head written with Python lists."""

import math
import sys
from dataclasses import replace

import loss_references as ref
import pytest
import torch
import torch.distributed as dist
from ddp_helpers import run_ddp
from mmpretrain.registry import MODELS
from slow_head import SlowHead
from torch import nn
from torch.nn import functional

from mmunimoco.models import UniConLoss
from mmunimoco.models.labels import SampleLabels, check_labels

DIM = 6


def build_head(**kwargs):
    torch.manual_seed(0)
    kwargs = dict(feat_dim=DIM, queue_len=20, temperature=0.3) | kwargs
    return MODELS.build(dict(type='UniMoCoHead', **kwargs)).double()


def unit_vectors(n, generator=None):
    x = torch.randn(n, DIM, dtype=torch.float64, generator=generator)
    return functional.normalize(x, dim=1)


def draw_labels(n, classes=3, unlabeled=0.4, multi_label=False):
    if multi_label:
        return torch.rand(n, classes) < 0.3
    labels = torch.randint(classes, (n,))
    return labels.masked_fill(torch.rand(n) < unlabeled, -1)


def with_indices(head, labels, indices):
    """What ``head.collect`` makes of samples with these labels."""
    samples = check_labels(labels, head.num_classes, head.multi_label)
    return replace(samples, indices=indices)


PROPAGATION = dict(k=3, threshold=0.6)
OPTIONS = {
    'published': {},
    'in-batch': dict(in_batch_positives=True),
    'ignore-unlabeled': dict(ignore_unlabeled_keys=True),
    'exclude-own': dict(exclude_own_keys=True),
    'two-temperatures': dict(positive_temperature=0.7),
    'multi-label': dict(multi_label=True, num_classes=3),
    'max-positives': dict(max_positives=2, exclude_own_keys=True),
    'label-warmup': dict(label_warmup=4, ignore_unlabeled_keys=True),
    'propagated-ignored': dict(propagate_labels=PROPAGATION),
    'propagated-positive': dict(
        propagate_labels=PROPAGATION | dict(use='positive', start=2),
        ignore_unlabeled_keys=True,
    ),
    'everything-of-one-label': dict(
        in_batch_positives=True,
        ignore_unlabeled_keys=True,
        exclude_own_keys=True,
        positive_temperature=0.5,
        label_warmup=5,
        max_positives=1,
        propagate_labels=PROPAGATION,
    ),
    'everything': dict(
        label_warmup=3,
        in_batch_positives=True,
        ignore_unlabeled_keys=True,
        exclude_own_keys=True,
        positive_temperature=0.5,
        multi_label=True,
        num_classes=3,
    ),
}
LOSSES = {
    'unicon': (dict(type='UniConLoss'), ref.unicon),
    'supcon-out': (dict(type='SupConLoss'), ref.supcon_out),
    'supcon-in': (
        dict(type='SupConLoss', reduction_position='in'),
        ref.supcon_in,
    ),
    'unicon-own': (
        dict(type='UniConLoss', own_key_weight=3),
        ref.own_weighted('unicon', 3),
    ),
    'supcon-out-own': (
        dict(type='SupConLoss', own_key_weight=0.5),
        ref.own_weighted('supcon-out', 0.5),
    ),
    'unicon-balanced': (
        dict(type='UniConLoss', own_key_weight='balanced'),
        ref.own_weighted('unicon', 'balanced'),
    ),
}


@pytest.mark.parametrize('streamed', [True, False])
@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('options', OPTIONS)
def test_equals_slow_head(options, loss, streamed):
    """Six steps that wrap around, with sample indices that come back."""
    options, (loss, reference) = OPTIONS[options], LOSSES[loss]
    head = build_head(loss=loss, streamed=streamed, **options)
    slow = SlowHead(head, reference)
    for _ in range(6):
        query, key = unit_vectors(7), unit_vectors(7)
        labels = draw_labels(7, multi_label=head.multi_label)
        indices = torch.randint(15, (7,))
        wanted = slow.loss(query, key, labels, indices)
        losses = head.loss(query, key, with_indices(head, labels, indices))
        assert losses['loss'].item() == pytest.approx(wanted, rel=1e-10)
        slow.check_queues(head)


def assert_same_step(heads, query, key, labels, indices):
    """The same loss, gradient and log values of both heads."""
    samples = with_indices(heads[0], labels, indices)
    results = [head.loss(query, key, samples) for head in heads]
    # Backward after the queue was written to, as in training.
    gradients = [torch.autograd.grad(x['loss'], query)[0] for x in results]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name])
        assert all(x[name].requires_grad == (name == 'loss') for x in results)


@pytest.mark.parametrize(
    ('options', 'loss'),
    [
        *((options, 'unicon') for options in OPTIONS),
        *((options, 'unicon-own') for options in ('everything', 'published')),
        ('published', 'supcon-out-own'),
    ],
)
def test_dense_and_streamed_have_the_same_gradient_and_log(options, loss):
    heads = [
        build_head(streamed=streamed, loss=LOSSES[loss][0], **OPTIONS[options])
        for streamed in (True, False)
    ]
    for _ in range(4):
        query, key = unit_vectors(9).requires_grad_(), unit_vectors(9)
        labels = draw_labels(9, multi_label=heads[0].multi_label)
        assert_same_step(heads, query, key, labels, torch.arange(9))


@pytest.mark.parametrize('streamed', [True, False])
def test_info_nce_ignores_labels_but_keeps_them(streamed):
    head = build_head(loss=dict(type='InfoNCELoss'), streamed=streamed)
    for _ in range(3):
        query, key = unit_vectors(5), unit_vectors(5)
        logits = torch.cat(
            [(query * key).sum(1, keepdim=True), query @ head.queue.T], 1
        )
        wanted = functional.cross_entropy(
            logits / 0.3, torch.zeros(5, dtype=torch.long)
        )
        loss = head.loss(query, key, torch.zeros(5).long())['loss']
        torch.testing.assert_close(loss, wanted)
    assert head.label_queue[:15].tolist() == [0] * 15


def test_no_labels_is_info_nce():
    unicon, info_nce = build_head(), build_head(loss=dict(type='InfoNCELoss'))
    for _ in range(5):
        query, key = unit_vectors(6), unit_vectors(6)
        labels = torch.full((6,), -1)
        losses = [
            h.loss(query, key, labels)['loss'] for h in (unicon, info_nce)
        ]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


@pytest.mark.parametrize('loss', [v for v, _ in LOSSES.values()])
def test_classes_of_one_member_are_info_nce(loss):
    """Labels that no other image has are worth as much as none."""
    head, info_nce = (
        build_head(loss=each) for each in (loss, dict(type='InfoNCELoss'))
    )
    for step in range(5):
        query, key = unit_vectors(6), unit_vectors(6)
        labels = torch.arange(6) + 6 * step
        losses = [h.loss(query, key, labels)['loss'] for h in (head, info_nce)]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


class PlainLoss(nn.Module):
    """A loss from outside, which knows only the contract."""

    def forward(self, logits, positives):
        assert positives[:, 0].all() and positives.dtype == torch.bool
        # Autocast of the model is off.
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32
        negative = logits.masked_fill(positives, float('-inf')).exp().sum(1)
        positive = (-logits).exp().masked_fill(~positives, 0).sum(1)
        return (1 + negative * positive).log().mean()


class DoubledUniCon(UniConLoss):
    """A loss that changes what is returned, not the sums."""

    def forward(self, logits, positives):
        return 2 * super().forward(logits, positives)


def test_a_forward_of_its_own_is_called():
    head, plain = build_head(), build_head()
    head.loss_module = DoubledUniCon()
    query, key, labels = unit_vectors(8), unit_vectors(8), draw_labels(8)
    losses = [h.loss(query, key, labels)['loss'] for h in (head, plain)]
    torch.testing.assert_close(losses[0], 2 * losses[1])


def test_a_loss_from_elsewhere_is_called_with_logits_and_positives():
    head, wanted = build_head(), build_head()
    head.loss_module = PlainLoss()
    for _ in range(3):
        query, key, labels = unit_vectors(8), unit_vectors(8), draw_labels(8)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            loss = head.loss(query, key, labels)['loss']
        torch.testing.assert_close(
            loss, wanted.loss(query, key, labels)['loss']
        )


@pytest.mark.parametrize('streamed', [True, False])
@pytest.mark.parametrize('loss', ['unicon', 'unicon-own', 'supcon-out-own'])
def test_half_precision_features_are_computed_in_float32(loss, streamed):
    options = dict(in_batch_positives=True, propagate_labels=PROPAGATION)
    heads = [
        build_head(loss=LOSSES[loss][0], streamed=streamed, **options).float()
        for _ in range(2)
    ]
    for _ in range(4):
        query, key = unit_vectors(9).bfloat16(), unit_vectors(9).bfloat16()
        labels = draw_labels(9)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found = heads[0].loss(query, key, labels)
        expected = heads[1].loss(query.float(), key.float(), labels)
        assert found == expected
    assert torch.equal(heads[0].queue, heads[1].queue)


@pytest.mark.parametrize('queue_len', [1, 2, 5, 7, 64])
@pytest.mark.parametrize('batch', [1, 3, 7, 20])
def test_any_batch_fits_any_queue(queue_len, batch):
    head = build_head(queue_len=queue_len, num_classes=3)
    slow = SlowHead(head, ref.unicon)
    for _ in range(4):
        query, key = unit_vectors(batch), unit_vectors(batch)
        labels = draw_labels(batch)
        wanted = slow.loss(query, key, labels)
        loss = head.loss(query, key, labels)['loss']
        assert loss.item() == pytest.approx(wanted, rel=1e-10)
        slow.check_queues(head)


def test_buffers_are_as_promised():
    head = MODELS.build(
        dict(type='UniMoCoHead', feat_dim=16, queue_len=50, temperature=0.2)
    )
    state = head.state_dict()
    assert set(state) == {'queue', 'label_queue', 'queue_ptr'}
    assert state['queue'].shape == (50, 16)
    torch.testing.assert_close(state['queue'].norm(dim=1), torch.ones(50))
    assert state['label_queue'].dtype == torch.int64
    assert state['label_queue'].tolist() == [-1] * 50
    assert state['queue_ptr'].tolist() == [0]
    multi = build_head(multi_label=True, num_classes=4, exclude_own_keys=True)
    assert multi.label_queue.shape == (20, 4) and not multi.label_queue.any()
    assert multi.index_queue.tolist() == [-1] * 20


@pytest.mark.parametrize(
    ('options', 'buffers'),
    [
        ({}, set()),
        (dict(label_warmup=4), {'steps'}),
        (
            dict(propagate_labels=PROPAGATION | dict(start=2)),
            {'propagated_queue', 'steps'},
        ),
    ],
)
def test_checkpoint_carries_the_queues(options, buffers):
    """Also into a head that has counted steps of its own."""
    head, other = build_head(**options), build_head(**options)
    published = {'queue', 'label_queue', 'queue_ptr'}
    assert set(head.state_dict()) == published | buffers
    other.loss(unit_vectors(7), unit_vectors(7), draw_labels(7))
    for _ in range(2):
        head.loss(unit_vectors(7), unit_vectors(7), draw_labels(7))
    other.load_state_dict(head.state_dict())
    for _ in range(3):
        query, key, labels = unit_vectors(7), unit_vectors(7), draw_labels(7)
        losses = [h.loss(query, key, labels)['loss'] for h in (head, other)]
        assert losses[0] == losses[1]
    for name, value in head.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_warmup_begins_without_labels_and_ends_with_all():
    """A query that is not drawn counts as unlabeled, for every loss."""
    warm, plain = build_head(label_warmup=8), build_head()
    unlabeled, shares = build_head(loss=dict(type='InfoNCELoss')), []
    for step in range(10):
        query, key = unit_vectors(200), unit_vectors(200)
        labels = torch.randint(3, (200,))
        before = warm.collapsed_loss().item()
        values = warm.loss(query, key, labels)
        usual = plain.loss(query, key, labels)
        without = unlabeled.loss(query, key, labels)
        # Positives beside the own key; all labels are known from step 1.
        few, many = (
            x['positives_per_labeled_query'] - 1 for x in (values, usual)
        )
        shares.append((few / many).item() if step else 0)
        if step == 0:
            assert values['loss'] == without['loss']
            assert before == pytest.approx(math.log(21))
        if step >= 8:
            assert values['loss'] == usual['loss']
    wanted = [min(step / 8, 1) for step in range(10)]
    assert shares == pytest.approx(wanted, abs=0.1)
    assert warm.collapsed_loss() == plain.collapsed_loss()


def test_neighbours_decide_by_the_share_of_their_votes():
    """Two labels in two directions; an unlabeled key is near one of them."""
    options = dict(k=4, threshold=0.75, use='positive')
    head = build_head(queue_len=8, propagate_labels=options)
    x, y, z = torch.eye(DIM, dtype=torch.float64)[:3]
    near = functional.normalize(x + 0.1 * z, dim=0)
    head.queue.copy_(torch.stack([x, x, x, y, y, z, z, z]))
    head.label_queue.copy_(torch.tensor([0, 0, 0, 1, 1, -1, -1, -1]))
    # Nearest of `near`: three of label 0 and one of 1. Of `y`: two of each.
    # A labeled key keeps its own label.
    keys = torch.stack([near, y, near])
    head.queue_ptr.fill_(5)
    values = head.loss(keys, keys, torch.tensor([-1, -1, 1]))
    assert head.propagated_queue.tolist() == [-1] * 5 + [0, -1, -1]
    assert head.label_queue.tolist() == [0, 0, 0, 1, 1, -1, -1, 1]
    assert values['propagated_queue_share'] == 100 / 8
    values = head.loss(x[None], x[None], torch.tensor([0]))
    assert values['positives_per_labeled_query'] == 1 + 3 + 1


def test_keys_get_no_gradient_and_the_queue_no_graph():
    head = build_head(in_batch_positives=True)
    query = unit_vectors(5).requires_grad_()
    key = unit_vectors(5).requires_grad_()
    head.loss(query, key, torch.zeros(5).long())['loss'].backward()
    assert query.grad.norm() > 0 and key.grad is None
    assert not head.queue.requires_grad


def test_observers_see_the_batch_without_its_graph_before_it_is_enqueued():
    head, seen = build_head(), []

    def observe(*batch):
        seen.extend(batch)
        seen.append(head.query_losses(*batch[:2], batch[3])[0])

    head.observers.append(observe)
    query, key = unit_vectors(5).requires_grad_(), unit_vectors(5)
    loss = head.loss(query, key, torch.arange(5))['loss']
    assert torch.equal(seen[0], query) and torch.equal(seen[1], key)
    assert seen[2].labels.tolist() == list(range(5))
    assert not seen[0].requires_grad and not seen[4].requires_grad
    assert seen[4].shape == (5,)
    assert seen[4].mean().item() == pytest.approx(loss.item())


def test_log_values_of_a_hand_made_batch():
    head = build_head(queue_len=4, feat_dim=DIM)
    x, y, z = torch.eye(DIM, dtype=torch.float64)[:3]
    head.queue.copy_(torch.stack([x, y, z, z]))
    head.label_queue.copy_(torch.tensor([0, 1, -1, -1]))
    # Labeled 0: own key at right angles, but a queue key of its class equal.
    # Unlabeled: own key at right angles, an unlabeled queue key nearest.
    query = torch.stack([x, z])
    key = torch.stack([y, x])
    values = head.loss(query, key, torch.tensor([0, -1]))
    values = {name: value.item() for name, value in values.items()}
    assert values['positives_per_labeled_query'] == 2
    assert values['top1_labeled'] == 100 and values['top1_unlabeled'] == 0
    # Positive pairs: (x, y), (x, x), (z, x); negatives: 3 of x, 4 of z.
    assert values['positive_similarity'] == pytest.approx(1 / 3)
    assert values['negative_similarity'] == pytest.approx(2 / 7)
    # After the batch is enqueued over the first two: 0, -1, -1, -1.
    assert values['labeled_queue_share'] == 25


@pytest.mark.parametrize('multi_label', [False, True])
@pytest.mark.parametrize(
    ('classes', 'absent'),
    [
        ([0, 2], {'top1_unlabeled'}),
        ([-1, -1], {'positives_per_labeled_query', 'top1_labeled'}),
        ([0, -1], set()),
    ],
)
def test_nothing_is_logged_of_queries_that_are_not_there(
    classes, absent, multi_label
):
    """A zero would enter the mean over the steps."""
    head = build_head(multi_label=multi_label, num_classes=3)
    labels = torch.tensor(classes)
    if multi_label:
        labels = functional.one_hot(labels + 1, 4)[:, 1:]
    values = head.loss(unit_vectors(2), unit_vectors(2), labels)
    always = {'loss', 'labeled_queue_share'}
    always |= {'positive_similarity', 'negative_similarity'}
    of_some = {'positives_per_labeled_query', 'top1_labeled', 'top1_unlabeled'}
    assert set(values) == (always | of_some) - absent
    assert all(value.isfinite() for value in values.values())


@pytest.mark.parametrize(
    ('kwargs', 'field'),
    [
        (dict(queue_len=0), 'queue_len'),
        (dict(feat_dim=0), 'feat_dim'),
        (dict(temperature=0), 'temperature'),
        (dict(temperature=float('nan')), 'temperature'),
        (dict(positive_temperature=-0.1), 'positive_temperature'),
        (dict(num_classes=0), 'num_classes'),
        (dict(queue_len=4096.0), 'queue_len must be an integer'),
        (dict(queue_len=True), 'queue_len'),
        (dict(feat_dim='128'), 'feat_dim'),
        (dict(num_classes=[10]), 'num_classes'),
        (dict(temperature='0.2'), 'temperature must be a number'),
        (dict(positive_temperature=True), 'positive_temperature'),
        (dict(multi_label=True), 'num_classes'),
        (dict(max_positives=0), 'max_positives'),
        (dict(label_warmup=-1), 'label_warmup'),
        (dict(label_warmup=1.5), 'label_warmup must be an integer'),
        (dict(propagate_labels=True), 'None or a dict of k, threshold'),
        (dict(propagate_labels=dict(kk=2)), 'None or a dict of k, threshold'),
        (dict(propagate_labels=dict(k=0)), r'propagate_labels\.k'),
        (dict(propagate_labels=dict(k=2.5)), r'labels\.k must be an integer'),
        (dict(propagate_labels=dict(threshold=0.5)), r'in \(0.5, 1\]'),
        (dict(propagate_labels=dict(start=-1)), 'model.*labels.start'),
        (dict(propagate_labels=dict(use='both')), 'ignore.*positive'),
        (
            dict(multi_label=True, num_classes=3, max_positives=2),
            'max_positives needs one label',
        ),
        (
            dict(multi_label=True, num_classes=3, propagate_labels={}),
            'propagate_labels needs one label',
        ),
    ],
)
def test_wrong_arguments_are_named(kwargs, field):
    with pytest.raises(ValueError, match=field):
        build_head(**kwargs)


@pytest.mark.parametrize(
    ('kwargs', 'labels', 'message'),
    [
        (dict(num_classes=3), torch.tensor([0, 3]), r'\[0, 3\].*\[-1, 2\]'),
        (dict(num_classes=3), torch.tensor([-2, 1]), r'\[-2, 1\]'),
        ({}, torch.tensor([-7, 1]), 'num_classes - 1'),
        ({}, torch.tensor([0.0, 1.0]), 'integers'),
        ({}, torch.tensor([0]), 'shape'),
        ({}, torch.zeros(2, 3).long(), 'shape'),
        (
            dict(multi_label=True, num_classes=3),
            torch.full((2, 3), 2),
            r'\[0, 1\]',
        ),
        (dict(exclude_own_keys=True), torch.tensor([0, 1]), 'indices'),
    ],
)
def test_wrong_labels_are_named_and_nothing_is_enqueued(
    kwargs, labels, message
):
    head = build_head(**kwargs)
    before = head.queue.clone()
    with pytest.raises(ValueError, match=message):
        head.loss(unit_vectors(2), unit_vectors(2), labels)
    assert torch.equal(head.queue, before)


def test_the_kernel_leaves_keys_that_are_never_positive_to_the_loop():
    pytest.importorskip('triton', minversion='3.0')
    from mmunimoco.models import fused_pass

    for options, supported in ({}, True), (dict(max_positives=2), False):
        head = build_head(**options).float()
        block = head._queue_block(SampleLabels(torch.zeros(3).long()))
        query = unit_vectors(3).float()
        assert fused_pass.supports(query, [block]) == supported


def test_fused_needs_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, 'triton', None)
    with pytest.raises(ValueError, match='needs Triton 3.*head.fused=False'):
        build_head(fused=True)


def test_wrong_features_are_named():
    head, labels = build_head(), torch.zeros(2).long()
    wide = torch.zeros(2, DIM + 1).double()
    for query, key in [
        (wide, unit_vectors(2)),
        (unit_vectors(2), wide),
        (unit_vectors(2), unit_vectors(3)),
        (unit_vectors(0), unit_vectors(0)),
    ]:
        with pytest.raises(ValueError, match='feat_dim'):
            head.loss(query, key, labels[: len(query)])


def _share(rank, sizes, x):
    return x.split(sizes)[rank]


def _run_rank(rank, world_size, sizes, cases):
    """Run the steps of one rank, on its share of the batches of each case."""
    return [_steps_of(rank, sizes, *case) for case in cases]


def _steps_of(rank, sizes, options, batches):
    """Losses and gradients, and the state of the head after the steps."""
    head = build_head(**options)
    results = []
    for query, key, labels, indices in batches:
        query, key, labels, indices = (
            _share(rank, sizes, x) for x in (query, key, labels, indices)
        )
        query = query.clone().requires_grad_()
        samples = with_indices(head, labels, indices)
        loss = head.loss(query, key, samples)['loss']
        results.append((loss.item(), torch.autograd.grad(loss, query)[0]))
    return results, head.state_dict()


# Even, uneven, and all labels on one rank; a batch longer than the queue.
@pytest.mark.parametrize(
    ('sizes', 'queue_len'),
    [([4, 4], 20), ([5, 2], 20), ([3, 4, 1, 2], 8)],
)
def test_ranks_equal_one_process(tmp_path, sizes, queue_len):
    cases = []
    for name in ('published', 'everything', 'everything-of-one-label'):
        options = OPTIONS[name] | dict(queue_len=queue_len)
        multi_label = build_head(**options).multi_label
        cases.append((options, batches_of_ranks(sizes, multi_label)))
    ranks = run_ddp(_run_rank, len(sizes), tmp_path, sizes, cases)
    for case, of_ranks in zip(cases, zip(*ranks, strict=True), strict=True):
        assert_equals_one_process(of_ranks, sizes, *case)


def batches_of_ranks(sizes, multi_label):
    """Batches, of which in every second only the first rank has labels."""
    n, batches = sum(sizes), []
    for step in range(4):
        labels = draw_labels(n, multi_label=multi_label)
        if step % 2:
            labels[sizes[0] :] = 0 if multi_label else -1
        batches.append(
            (unit_vectors(n), unit_vectors(n), labels, torch.arange(n))
        )
    return batches


def assert_equals_one_process(ranks, sizes, options, batches):
    n, head = sum(sizes), build_head(**options)
    for step, (query, key, labels, indices) in enumerate(batches):
        query = query.clone().requires_grad_()
        samples = with_indices(head, labels, indices)
        loss = head.loss(query, key, samples)['loss']
        gradient = torch.autograd.grad(loss, query)[0] * n
        shares = [results[step] for results, _ in ranks]
        mean = sum(x * w for (x, _), w in zip(shares, sizes, strict=True)) / n
        assert mean == pytest.approx(loss.item(), rel=1e-10)
        gradients = [g * w for (_, g), w in zip(shares, sizes, strict=True)]
        torch.testing.assert_close(torch.cat(gradients), gradient)
    for _, state in ranks:
        assert set(state) == set(head.state_dict())
        for name, value in head.state_dict().items():
            assert torch.equal(state[name], value), name


def _count_collectives(rank, world_size):
    calls = []
    original = dist.all_gather

    def counted(output, tensor, *args, **kwargs):
        calls.append(tensor.numel())
        return original(output, tensor, *args, **kwargs)

    dist.all_gather = counted
    head = build_head(exclude_own_keys=True)
    samples = SampleLabels(draw_labels(4), torch.arange(4))
    sizes = [4] * world_size
    head.loss(unit_vectors(4), unit_vectors(4), samples, sizes)
    return calls


def test_keys_labels_and_indices_travel_in_one_gather(tmp_path):
    for calls in run_ddp(_count_collectives, 2, tmp_path):
        # 4 rows of 6 float64, one int64 label and one int64 index, as bytes.
        assert calls == [4 * (6 + 1 + 1) * 8]


@pytest.mark.parametrize('streamed', [True, False])
@pytest.mark.parametrize(
    ('loss', 'formula'),
    [
        (dict(type='UniConLoss'), lambda p, n: math.log(1 + p * n)),
        (
            dict(type='UniConLoss', positive_reduction='mean'),
            lambda p, n: math.log(1 + n),
        ),
        (dict(type='SupConLoss'), lambda p, n: math.log(p + n)),
        (
            dict(type='SupConLoss', reduction_position='in'),
            lambda p, n: math.log(p + n),
        ),
        (dict(type='InfoNCELoss'), lambda p, n: math.log(1 + 7)),
    ],
)
def test_collapsed_loss_is_that_of_equal_features(loss, formula, streamed):
    head = build_head(loss=loss, queue_len=7, streamed=streamed)
    head.label_queue[:] = torch.tensor([0, 0, 0, 1, 1, -1, -1])
    sizes = [(4, 4)] * 3 + [(3, 5)] * 2 + [(1, 7)] * 2
    expected = sum(formula(*size) for size in sizes) / 7
    assert head.collapsed_loss().item() == pytest.approx(expected)
    feature = functional.normalize(torch.ones(7, DIM).double(), dim=1)
    head.queue[:] = feature
    actual = head.loss(feature, feature, head.label_queue.clone())['loss']
    assert actual.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ('options', 'sizes'),
    [
        (
            dict(exclude_own_keys=True),
            [(4, 4)] * 3 + [(3, 5)] * 2 + [(1, 7)] * 2,
        ),
        # Of three keys of class 0 the third is left out.
        (
            dict(max_positives=2),
            [(3, 4)] * 3 + [(3, 5)] * 2 + [(1, 7)] * 2,
        ),
        # One of the unlabeled keys is taken for class 0.
        (
            dict(propagate_labels=dict(use='positive')),
            [(5, 3)] * 3 + [(3, 5)] * 2 + [(1, 7)] * 2,
        ),
        (
            dict(propagate_labels=dict(use='ignore')),
            [(4, 3)] * 3 + [(3, 5)] * 2 + [(1, 7)] * 2,
        ),
    ],
)
def test_collapsed_loss_follows_the_options(options, sizes):
    head = build_head(queue_len=7, **options)
    head.label_queue[:] = torch.tensor([0, 0, 0, 1, 1, -1, -1])
    if head.propagation is not None:
        head.propagated_queue[5] = 0
    wanted = sum(math.log(1 + p * n) for p, n in sizes) / 7
    assert head.collapsed_loss().item() == pytest.approx(wanted)


@pytest.mark.parametrize('options', [{}, dict(max_positives=2)])
@pytest.mark.parametrize('batch', [5, 12])
def test_collapsed_loss_counts_positives_of_the_batch(batch, options):
    head = build_head(queue_len=8, in_batch_positives=True, **options)
    feature = functional.normalize(torch.ones(batch, DIM).double(), dim=1)
    head.queue[:] = feature[:1]
    # The batch is labeled as the rows of the queue that stand for it.
    rows = torch.arange(batch) * 8 // batch
    head.label_queue[:] = torch.tensor([0, 0, 0, 1, 1, -1, -1, 2])
    labels = head.label_queue[rows]
    found = head.collapsed_loss(batch_size=batch).item()
    actual = head.loss(feature, feature, labels)['loss'].item()
    assert found == pytest.approx(actual)


@pytest.mark.parametrize('in_batch', [False, True])
@pytest.mark.parametrize(
    ('steps', 'last', 'share'), [(1, 0, 1 / 4), (1, 3, 0), (6, 3, 11 / 12)]
)
def test_collapsed_loss_is_mixed_during_the_warmup(
    steps, last, share, in_batch
):
    head = build_head(queue_len=7, label_warmup=4, in_batch_positives=in_batch)
    head.label_queue[:] = 0
    head.steps.fill_(steps)
    # Queries that use their label have no negatives; the others have no
    # positives but their own key.
    found = head.collapsed_loss(num_steps=last, batch_size=5).item()
    assert found == pytest.approx((1 - share) * math.log(8))


@pytest.mark.parametrize('steps', [2, 4, 10, 20])
def test_collapsed_loss_of_a_stuck_run_is_its_mean_loss(steps):
    """Over the last steps, of which each had its share of labels."""
    head, losses = build_head(queue_len=10, label_warmup=8), []
    feature = functional.normalize(torch.ones(500, DIM).double(), dim=1)
    head.queue[:] = feature[:10]
    labels = torch.arange(500) % 2
    head.label_queue[:] = labels[:10]
    for _ in range(steps):
        losses.append(head.loss(feature, feature, labels)['loss'].item())
    head.label_queue[:] = labels[:10]
    last = losses[-min(steps, 4) :]
    found = head.collapsed_loss(num_steps=len(last)).item()
    assert found == pytest.approx(sum(last) / len(last), rel=0.02)
