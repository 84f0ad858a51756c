"""What the initializer of transfer loads, requires and reports."""

import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.registry import MODELS

import mmunimoco  # noqa: F401  registers the initializer

STAGES = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1))


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def resnet(depth=18, **options):
    config = dict(type='ResNet', depth=depth, stem_channels=8, base_channels=8)
    return dict(config, zero_init_residual=True) | options


def vit(kind='MoCoV3ViT', **options):
    arch = dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
    )
    config = dict(type=kind, arch=arch, img_size=32, patch_size=16)
    return config | options


def build(config, path=None, prefix='backbone.', **init):
    """Build a module and initialise it from a checkpoint."""
    if path is not None:
        init_cfg = dict(type='Pretrained', checkpoint=str(path))
        if prefix is not None:
            init_cfg['prefix'] = prefix
        config = dict(config, init_cfg=init_cfg | init)
    module = MODELS.build(config)
    if path is not None:
        module.init_weights()
    return module


def save(path, config, prefix='backbone.', without=(), **more):
    """Save weights that no initializer would make; returns them."""
    module = MODELS.build(config)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    state = {
        prefix + key: value
        for key, value in module.state_dict().items()
        if key not in without
    }
    torch.save(dict(state_dict={**state, **more}, meta={}), path)
    return state


def report(log):
    (text,) = (m for m in log.messages if m.startswith('Load report'))
    return text


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'a.pth'


# What is loaded.


@pytest.mark.parametrize('config', [resnet(), vit('VisionTransformer'), vit()])
@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
def test_nothing_overwrites_what_was_loaded(path, config, scope):
    """Although mmdet and mmseg only keep what 'Pretrained' has loaded."""
    if scope != 'mmpretrain':
        pytest.importorskip(scope)
    expected = save(path, config)
    config = dict(config, type=f'mmpretrain.{config["type"]}')
    with DefaultScope.overwrite_default_scope(scope):
        init_default_scope(scope)
        module = build(config, path, type='mmpretrain.Pretrained')
    for key, value in module.state_dict().items():
        assert torch.equal(value, expected[f'backbone.{key}']), key


@pytest.mark.parametrize(
    ('written', 'prefix'),
    [
        ('module.backbone.', 'module.backbone.'),
        ('backbone.', 'backbone'),
        ('', None),
        ('module.', None),
    ],
)
def test_prefixes_and_wrappers(path, written, prefix):
    more = {'head.queue': torch.zeros(3, 2)}
    expected = save(path, resnet(), written, **more)
    module = build(resnet(), path, prefix)
    for key, value in module.state_dict().items():
        assert torch.equal(value, expected[written + key]), key


def test_position_embedding_may_be_resized(path):
    save(path, vit())
    assert build(vit(img_size=64), path).pos_embed.shape[1] == 17


def test_shared_head_of_c4_is_filled_from_the_backbone(path, log):
    pytest.importorskip('mmdet')
    expected = save(path, dict(type='ResNet', depth=50))
    with DefaultScope.overwrite_default_scope('mmdet'):
        init_default_scope('mmdet')
        head = build(
            dict(
                type='mmdet.ResLayerExtraNorm',
                depth=50,
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                norm_eval=False,
            ),
            path,
            type='mmpretrain.Pretrained',
            allow_missing=('norm.',),
        )
    own = head.state_dict()
    for key, value in own.items():
        if key.startswith('layer4.'):
            assert torch.equal(value, expected[f'backbone.{key}']), key
    assert torch.equal(own['norm.weight'], torch.ones(2048))
    text = report(log)
    assert 'matched: 60 of 65 tensors' in text
    assert (
        'missing: norm.weight, norm.bias, norm.running_mean, '
        'norm.running_var (allowed)'
    ) in text
    assert "'backbone.layer3.' (114 keys)" in text


@pytest.mark.parametrize('kind', ['Pretrained', 'mmpretrain.Pretrained'])
def test_none_leaves_random_weights(kind, log):
    module = build(resnet(50), 'none', type=kind)
    # As mmpretrain initialises a ResNet.
    assert module.layer1[0].bn3.weight.abs().max() == 0
    fan_out = 8 * 7 * 7
    std = module.conv1.weight.std().item()
    assert std == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert 'the weights are random' in report(log)


# What is reported.


def test_report_counts_and_names(path, log):
    more = dict.fromkeys(
        ['neck.fc.weight', 'head.queue', 'head.label_queue'], torch.ones(1)
    )
    save(path, resnet(), **more)
    build(resnet(**STAGES, out_indices=(2,)), path)
    assert report(log).splitlines() == [
        'Load report of ResNet: the checkpoint '
        f"{path} under the prefix 'backbone.'",
        '    matched: 90 of 90 tensors',
        '    missing: none',
        "    unused: 'backbone.layer4.' (30 keys), 'head.' (2 keys), "
        "'neck.' (1 key)",
    ]


def test_batch_counts_may_be_missing(path, log):
    """Old releases of torch did not save them."""
    state = MODELS.build(resnet()).state_dict()
    save(path, resnet(), without=[k for k in state if 'num_batches' in k])
    build(resnet(), path)
    assert 'matched: 100 of 120 tensors' in report(log)
    assert 'missing: none' in report(log)


# What is refused.


@pytest.mark.parametrize('name', ['bn1.running_var', 'layer4.1.conv2.weight'])
def test_one_missing_tensor(path, name):
    save(path, resnet(), without=[name])
    with pytest.raises(ValueError, match=f'1 are missing: {name}[.]'):
        build(resnet(), path)
    build(resnet(), path, allow_missing=name)


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [
        (resnet(50), resnet(18), r'conv1.weight \(\(8, 8, 1, 1\) in the file'),
        (resnet(18), resnet(50), r'tensors fit; \d+ are missing: '),
        (resnet(), resnet(stem_channels=4, base_channels=4), 'nothing in'),
        (vit(), resnet(), 'nothing in the checkpoint'),
    ],
)
def test_another_architecture(path, source, target, message):
    save(path, source)
    with pytest.raises(ValueError, match=message):
        build(target, path)


@pytest.mark.parametrize('written', ['encoder_q.', 'module.encoder_q.'])
def test_other_prefixes_are_listed(path, written):
    save(path, resnet(), written)
    message = rf"'{written}' \(120 keys\)".replace('.', r'\.')
    with pytest.raises(ValueError, match=message):
        build(resnet(), path)
    with pytest.raises(ValueError, match='nothing in the checkpoint'):
        build(resnet(), path, prefix=None)


def test_files_that_cannot_be_read(path):
    for empty in ('', None):
        with pytest.raises(
            ValueError, match='model.backbone.init_cfg.checkpoint'
        ):
            module = MODELS.build(
                resnet(
                    init_cfg=dict(
                        type='Pretrained', checkpoint=empty, prefix='backbone.'
                    )
                )
            )
            module.init_weights()
    with pytest.raises(FileNotFoundError, match='nowhere/a.pth'):
        build(resnet(), 'nowhere/a.pth')
    save(path, resnet())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match='is damaged'):
        build(resnet(), path)
