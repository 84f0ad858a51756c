"""Checkpoints of other projects, converted for this one."""

import pytest
import torch
import torchvision
from foreign_checkpoints import (
    assert_same_features,
    moco_checkpoint,
    randomize,
    unimoco_config,
)
from mmpretrain.registry import MODELS
from small_unimoco import build_unimoco

from mmunimoco.converters import to_mmunimoco
from mmunimoco.utils.normalization import IMAGENET


def images(size=64):
    return torch.randn(
        2, 3, size, size, generator=torch.Generator().manual_seed(3)
    )


@pytest.mark.parametrize(
    'depth, version, prefix, labels',
    [(50, 2, 'module.', None), (18, 1, '', list(range(-1, 11)))],
)
@torch.no_grad()
def test_moco_becomes_unimoco(depth, version, prefix, labels):
    checkpoint, query, key = moco_checkpoint(
        depth, version, labels=labels, prefix=prefix
    )
    result = to_mmunimoco(checkpoint)
    assert result['meta'] == dict(
        epoch=0,
        iter=0,
        normalization=IMAGENET,
        converted_from=dict(source='moco', epoch=200),
    )
    model = MODELS.build(unimoco_config(depth, version)).eval()
    model.load_state_dict(result['state_dict'], strict=True)
    x = images()
    assert_same_features(model.neck(model.backbone(x))[0], query(x))
    assert_same_features(model.encoder_k(x)[0], key(x))
    queue = checkpoint['state_dict'][f'{prefix}queue']
    assert torch.equal(model.head.queue, queue.T)
    assert model.head.label_queue.tolist() == (labels or [-1] * 12)
    assert result['state_dict']['head.label_queue'].dtype == torch.int64
    assert model.head.queue_ptr.tolist() == [4]
    # At step 0 the momentum encoder would be overwritten.
    assert model.encoder_k.steps == 1


def test_mmselfsup_becomes_unimoco():
    model = randomize(build_unimoco())
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in (
            ('backbone.', 'encoder_q.0.'),
            ('neck.', 'encoder_q.1.'),
            ('encoder_k.module.', 'encoder_k.'),
        ):
            if key.startswith(ours):
                state[theirs + key[len(ours) :]] = value
        if key.startswith(('backbone.', 'neck.')):
            state[key] = value
    state['queue'] = model.head.queue.T
    state['queue_ptr'] = model.head.queue_ptr
    result = to_mmunimoco(dict(state_dict=state, meta=dict(epoch=3)))
    expected = {**model.state_dict(), 'encoder_k.steps': torch.tensor(1)}
    assert result['meta']['converted_from'] == dict(
        source='mmselfsup', epoch=3
    )
    assert 'normalization' not in result['meta']
    assert result['state_dict'].keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(result['state_dict'][key], value), key

    state['backbone.conv1.weight'] = state['backbone.conv1.weight'] + 1
    with pytest.raises(ValueError, match=r'encoder_q\.0\.conv1.* differ'):
        to_mmunimoco(state)


def test_mmpretrain_becomes_unimoco():
    ours = build_unimoco()
    config = dict(
        type='MoCo',
        backbone=dict(
            type='ResNet', depth=18, stem_channels=8, base_channels=8
        ),
        neck=dict(
            type='MoCoV2Neck', in_channels=64, hid_channels=32, out_channels=16
        ),
        head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss')),
        queue_len=32,
        feat_dim=16,
    )
    model = randomize(MODELS.build(config))
    model.encoder_k.steps.fill_(9)
    text = (
        "model = dict(type='MoCo')\n"
        'data_preprocessor = dict(mean=(1.0, 2, 3), std=[4, 5, 6], '
        'to_rgb=True)'
    )
    result = to_mmunimoco(
        dict(
            state_dict=model.state_dict(),
            meta=dict(cfg=text, epoch=7, iter=70),
        )
    )
    ours.load_state_dict(result['state_dict'], strict=True)
    assert torch.equal(ours.head.queue, model.queue.T)
    assert ours.encoder_k.steps == 9
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(ours.backbone.state_dict()[key], value), key
    meta = result['meta']
    assert meta['normalization'] == dict(
        mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True
    )
    # Without optimizer it resumes at epoch 0.
    assert (meta['epoch'], meta['iter']) == (0, 0)
    assert meta['converted_from']['epoch'] == 7
    # With it, where it was.
    state = dict(
        optimizer=dict(state={}),
        param_schedulers=[dict(last_step=7)],
        message_hub=dict(log_scalars=dict(loss=1), runtime_info={}),
    )
    old = dict(state_dict=model.state_dict(), meta=dict(epoch=7, iter=70))
    result = to_mmunimoco(old | state)
    assert (result['meta']['epoch'], result['meta']['iter']) == (7, 70)
    assert {name: result[name] for name in state} == state


@pytest.mark.parametrize('library, depth', [('torchvision', 50), ('timm', 18)])
@torch.no_grad()
def test_resnets_become_classifiers(library, depth):
    if library == 'timm':
        timm = pytest.importorskip('timm')
        theirs = timm.create_model(f'resnet{depth}', num_classes=10)
    else:
        build = getattr(torchvision.models, f'resnet{depth}')
        theirs = build(num_classes=10)
    randomize(theirs)
    result = to_mmunimoco(theirs.state_dict(), source=library)
    ours = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=depth),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=10,
                in_channels=512 if depth < 50 else 2048,
            ),
        )
    ).eval()
    ours.load_state_dict(result['state_dict'], strict=True)
    logits = ours.head(ours.extract_feat(images()))
    assert_same_features(logits, theirs(images()))
    assert result['meta']['normalization'] == IMAGENET
    cut = dict(theirs.state_dict(), **{'fc.weight': torch.ones(10, 9)})
    with pytest.raises(ValueError, match=r'fc.weight is \(10, 9\), but the b'):
        to_mmunimoco(cut, source=library)


@pytest.fixture(scope='module')
def published():
    return moco_checkpoint()[0]['state_dict']


def drop(state, start):
    return {k: v for k, v in state.items() if not k.startswith(start)}


@pytest.mark.parametrize(
    'change, source, message',
    [
        (lambda s: {}, 'auto', 'none of the known sources.*no weights'),
        (lambda s: s, 'timm', r"not a checkpoint of timm.*'encoder_q\.'"),
        (lambda s: s, 'mmpretrain', "no key starts with 'encoder_k.module.'"),
        (lambda s: s, 'byol', "no source 'byol'"),
        (lambda s: {'a.b': s['module.queue']}, 'auto', r"'a\.' \(1 key\)"),
        (
            lambda s: {'backbone.conv1.weight': s['module.queue']},
            'auto',
            'nothing to convert',
        ),
        (
            lambda s: {'head.queue': s['module.queue']},
            'auto',
            'a checkpoint of this project',
        ),
        (
            lambda s: {**s, 'module.queue_labels': s['module.queue']},
            'auto',
            '1 of 251 keys are not those of a checkpoint of moco: queue_lab',
        ),
        (
            lambda s: drop(s, 'module.encoder_q.layer3.1.bn1.bias'),
            'auto',
            r'not a complete plain ResNet-18: layer3\.1\.bn1\.bias is missing',
        ),
        (
            lambda s: drop(s, 'module.encoder_q.layer4.1'),
            'auto',
            r'stages of \(2, 2, 2, 1\) basic blocks',
        ),
        (
            lambda s: {
                **s,
                'module.encoder_q.layer1.0.conv2.weight': torch.ones(9, 9),
            },
            'auto',
            r'conv2\.weight \(\(9, 9\) in the file, \(64, 64, 3, 3\)',
        ),
        (
            lambda s: drop(s, 'module.encoder_k.fc.2'),
            'auto',
            r"momentum encoder's neck does not .* mlp\.2\.weight is missing",
        ),
        (
            lambda s: {**s, 'module.queue': s['module.queue'].T},
            'auto',
            'keys of 12 numbers .* ends with 16',
        ),
        (
            lambda s: {**s, 'module.label_queue': torch.zeros(5)},
            'auto',
            r'label_queue is \(5,\), but the queue has 12 keys',
        ),
        (
            lambda s: {**s, 'module.queue_ptr': torch.tensor([12])},
            'auto',
            'queue_ptr is 12, outside the 12 keys',
        ),
        (lambda s: drop(s, 'module.queue_ptr'), 'auto', 'no queue_ptr'),
        (
            lambda s: {**s, 'module.queue_ptr': torch.tensor([4, 5])},
            'auto',
            'no queue_ptr of one number',
        ),
        (
            lambda s: {**s, 'module.queue': s['module.queue'][0]},
            'auto',
            r'queue is \(12,\), not \(C, K\)',
        ),
        (
            lambda s: {k: s[k] for k in s if k != 'module.queue'},
            'auto',
            'there is a queue_ptr or label_queue, no queue',
        ),
    ],
)
def test_problem_is_named(published, change, source, message):
    with pytest.raises(ValueError, match=message):
        to_mmunimoco(change(published), source)


@pytest.mark.parametrize('name', ['resnetaa50', 'resnet50_gn', 'vit_base'])
def test_relatives_of_resnets_are_refused(name):
    state = torchvision.models.resnet18().state_dict()
    for known in ('resnet18', 'resnet18.a1_in1k', 'tv_resnet18', None):
        to_mmunimoco(dict(state_dict=state, arch=known), 'timm')
    with pytest.raises(ValueError, match=f"arch='{name}'; only torchvision"):
        to_mmunimoco(dict(state_dict=state, arch=name), 'timm')


def test_backbone_alone(published):
    state = {
        k: v for k, v in published.items() if k.startswith('module.encoder_q.')
    }
    state = drop(state, 'module.encoder_q.fc')
    result = to_mmunimoco(state)['state_dict']
    assert len(result) == len(state)
    assert all(key.startswith('backbone.') for key in result)
