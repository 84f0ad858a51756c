"""UniMoCo against the published algorithm and against mmpretrain's MoCo."""

from copy import deepcopy

import pytest
import torch
from cpu_autocast import CPU_AUTOCAST
from mmpretrain.registry import MODELS
from small_unimoco import (
    DIM,
    MOMENTUM,
    QUEUE_LEN,
    SGD,
    TEMPERATURE,
    Encoder,
    build_unimoco,
    data_samples,
    draw_batches,
    train_step,
    trained_parameters,
    unimoco_config,
)
from torch.nn import functional

from benchmarks.published import PublishedUniMoCo
from mmunimoco.models.batch_shuffle import ShufflePlan
from mmunimoco.models.labels import KeyBlock, SampleLabels


# In float64 the trajectory is checked beyond doubt; in float32 rounding is
# all that may differ. Not for every seed: where an activation is zero but for
# rounding, a reference whose images differ by 1e-7 moves as far from itself.
@pytest.mark.parametrize(
    ('dtype', 'tolerance', 'unlabeled'),
    [
        (torch.float64, 1e-9, 0.0),
        (torch.float64, 1e-9, 0.5),
        (torch.float64, 1e-9, 1.0),
        (torch.float32, 1e-4, 0.5),
    ],
)
def test_trajectory_equals_the_published_algorithm(
    dtype, tolerance, unlabeled
):
    """While the queue is filled three times."""
    model = build_unimoco(seed=2).to(dtype)
    reference = PublishedUniMoCo(
        deepcopy(Encoder(model)),
        model.head.queue.T,
        SGD,
        momentum=1 - MOMENTUM,
        temperature=TEMPERATURE,
    )
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    for views, labels in draw_batches(
        steps=12, unlabeled=unlabeled, dtype=dtype
    ):
        wanted = reference.step(*views, labels)
        loss = train_step(model, optimizer, views, labels)
        assert loss == pytest.approx(wanted, rel=tolerance)
    pairs = [
        (Encoder(model).state_dict(), reference.encoder_q.state_dict()),
        (
            dict(model.encoder_k.module.named_parameters()),
            dict(reference.encoder_k.named_parameters()),
        ),
    ]
    for ours, theirs in pairs:
        for value, wanted in zip(ours.values(), theirs.values(), strict=True):
            torch.testing.assert_close(
                value, wanted, rtol=tolerance, atol=tolerance
            )
    torch.testing.assert_close(
        model.head.queue,
        reference.head.queue.T,
        rtol=tolerance,
        atol=tolerance,
    )
    assert torch.equal(model.head.label_queue, reference.head.label_queue)
    assert int(model.head.queue_ptr) == reference.head.pointer


def moco_config(**options):
    """Mmpretrain's MoCo of the same encoder."""
    head = dict(
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=TEMPERATURE,
    )
    return unimoco_config(**options) | dict(type='MoCo', head=head)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_without_labels_it_is_mmpretrains_moco(dtype):
    """Every step: loss, weights, both encoders, queue."""
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    model = build_unimoco()
    moco = MODELS.build(moco_config(queue_len=QUEUE_LEN, feat_dim=DIM))
    moco.backbone.load_state_dict(model.backbone.state_dict())
    moco.neck.load_state_dict(model.neck.state_dict())
    moco.queue.copy_(model.head.queue.T)
    model, moco = model.to(dtype), moco.to(dtype)
    optimizers = [
        torch.optim.SGD(trained_parameters(m), **SGD) for m in (model, moco)
    ]
    for views, labels in draw_batches(steps=12, unlabeled=1.0, dtype=dtype):
        losses = [
            train_step(m, optimizer, list(views), labels)
            for m, optimizer in zip((model, moco), optimizers, strict=True)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=tolerance)
        theirs = dict(moco.named_parameters())
        for name, value in model.named_parameters():
            torch.testing.assert_close(
                value, theirs[name], rtol=tolerance, atol=tolerance
            )
        torch.testing.assert_close(
            model.head.queue, moco.queue.T, rtol=tolerance, atol=tolerance
        )
    assert model.head.queue_ptr == moco.queue_ptr


def test_checkpoint_keys():
    model = build_unimoco()
    roots = {name.split('.')[0] for name in model.state_dict()}
    assert roots == {'backbone', 'neck', 'encoder_k', 'head'}
    moco = MODELS.build(moco_config())
    # All but the queues are where mmpretrain's MoCo has them.
    missing, unexpected = model.load_state_dict(
        moco.state_dict(), strict=False
    )
    assert sorted(missing) == [
        'head.label_queue',
        'head.queue',
        'head.queue_ptr',
    ]
    assert sorted(unexpected) == ['queue', 'queue_ptr']


def test_only_the_query_encoder_is_trained():
    model = build_unimoco()
    ((views, labels),) = draw_batches(steps=1)
    model(views, data_samples(labels), mode='loss')['loss'].backward()
    for name, parameter in model.named_parameters():
        trained = name.startswith(('backbone.', 'neck.'))
        assert parameter.requires_grad == trained, name
        assert (parameter.grad is not None) == trained, name


def test_saved_and_restored_training_goes_on_the_same():
    model = build_unimoco()
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    *first, last = draw_batches(steps=6)
    for views, labels in first:
        train_step(model, optimizer, views, labels)
    other = build_unimoco(seed=1)
    other.load_state_dict(model.state_dict())
    other_optimizer = torch.optim.SGD(trained_parameters(other), **SGD)
    other_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
    losses = [
        train_step(m, o, *last)
        for m, o in ((model, optimizer), (other, other_optimizer))
    ]
    assert losses[0] == losses[1]
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize('dtype', CPU_AUTOCAST)
def test_amp_step_is_close_to_float32(dtype):
    ((views, labels),) = draw_batches(steps=1)
    wanted = build_unimoco()(views, data_samples(labels), mode='loss')[
        'loss'
    ].item()
    model = build_unimoco()
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    before = deepcopy(model.state_dict())
    # GradScaler does nothing on a CPU; bf16 and fp16 autocast are real.
    with torch.autocast('cpu', dtype=dtype):
        losses = model(views, data_samples(labels), mode='loss')
    assert losses['loss'].dtype == torch.float32
    assert losses['loss'].item() == pytest.approx(wanted, rel=0.05)
    losses['loss'].backward()
    optimizer.step()
    assert model.head.queue.dtype == torch.float32
    norms = model.head.queue.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(QUEUE_LEN))
    changed = model.backbone.conv1.weight != before['backbone.conv1.weight']
    assert changed.any()


def test_log_values_do_not_add_to_the_loss():
    model = build_unimoco()
    ((views, labels),) = draw_batches(steps=1)
    losses = model(views, data_samples(labels), mode='loss')
    total, log = model.parse_losses(losses)
    assert total == losses['loss']
    assert set(log) == {
        'loss',
        'labeled_queue_share',
        'positives_per_labeled_query',
        'top1_labeled',
        'top1_unlabeled',
        'positive_similarity',
        'negative_similarity',
    }


def test_older_keys_of_the_same_image_are_left_out():
    """A second pass over the same images finds no own key in the queue."""
    model = build_unimoco(exclude_own_keys=True)
    ((views, _),) = draw_batches(steps=1)
    unlabeled = data_samples(torch.full((8,), -1))
    model(views, unlabeled, mode='loss')
    assert (model.head.index_queue[:8] == torch.arange(8)).all()
    # What is left: the negatives of query 0 are all keys but its own.
    indices = model.head.index_queue
    block = KeyBlock(
        model.head.queue,
        SampleLabels(model.head.label_queue, indices),
        SampleLabels(torch.full((8,), -1), indices[:8]),
        exclude_own=True,
    )
    _, ignored = block.masks(slice(0, len(indices)))
    assert ignored.sum(dim=1).tolist() == [1] * 8
    assert ignored[:, :8].diagonal().all()


@pytest.mark.parametrize('shuffle', [True, False])
def test_split_batch_norm_shuffles_the_keys(shuffle):
    """The groups of the key batch are others than those of the query."""
    split = dict(type='SplitBatchNorm', num_splits=4)
    model = build_unimoco(norm=split, options=dict(shuffle_bn=shuffle))
    ((views, labels),) = draw_batches(steps=1)
    order = torch.arange(8)
    if shuffle:
        torch.manual_seed(3)
        order = ShufflePlan.draw(8, 'cpu').permutation
    groups = [views[1][part] for part in order.split(2)]
    wanted = torch.zeros(8, DIM)
    with torch.no_grad():
        # Each group alone, through plain BN, is a virtual device.
        plain = build_unimoco()
        plain.load_state_dict(model.state_dict())
        parts = [plain.neck(plain.backbone(x))[0] for x in groups]
    wanted[order] = functional.normalize(torch.cat(parts), dim=1)
    torch.manual_seed(3)
    model(views, data_samples(labels), mode='loss')
    torch.testing.assert_close(
        model.head.queue[:8], wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('views', [1, 3, None])
def test_two_views_are_needed(views):
    images = torch.zeros(2, 3, 32, 32)
    inputs = images if views is None else [images] * views
    samples = data_samples(torch.zeros(2).long())
    with pytest.raises(ValueError, match='num_views=2'):
        build_unimoco()(inputs, samples, mode='loss')


def test_parameters_that_deepspeed_shards_are_refused():
    model = build_unimoco()
    # Its stage 3 adds this to each parameter.
    model.backbone.conv1.weight.ds_tensor = torch.zeros(1)
    ((views, labels),) = draw_batches(steps=1)
    with pytest.raises(ValueError, match='stage 3 of DeepSpeed'):
        model(views, data_samples(labels), mode='loss')


@pytest.mark.parametrize('momentum', [-0.1, 1.5])
def test_wrong_momentum_is_named(momentum):
    with pytest.raises(ValueError, match='momentum'):
        build_unimoco(options=dict(momentum=momentum))
