"""What the initializer of transfer loads, demands and reports."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.registry import MODELS

import mmunimoco  # noqa: F401  registers the initializer


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def log(caplog):
    """Messages of mmengine's logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def _init(path, **more):
    config = dict(type='mmpretrain.Pretrained', checkpoint=str(path))
    return dict(config, prefix='backbone.', **more)


def _resnet(**options):
    config = dict(type='ResNet', depth=50, stem_channels=8, base_channels=8)
    return dict(config, zero_init_residual=True, **options)


def _vit(**options):
    arch = dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
    )
    config = dict(type='VisionTransformer', arch=arch, img_size=32)
    return dict(config, patch_size=16, **options)


def _randomize(module):
    """Values that no initializer would leave or make."""
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return module


def _save(path, module, without=(), **more):
    state = {
        f'backbone.{key}': value
        for key, value in module.state_dict().items()
        if key not in without
    }
    torch.save(dict(state_dict={**state, **more}), path)
    return state


def _report(log):
    (text,) = (m for m in log.messages if m.startswith('Load report'))
    return text


@pytest.mark.parametrize('config', [_resnet(), _vit(), _vit(type='MoCoV3ViT')])
@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
def test_nothing_overwrites_what_was_loaded(tmp_path, config, scope):
    """Also where hosts leave alone only what they know as 'Pretrained'."""
    if scope != 'mmpretrain':
        pytest.importorskip(scope)
    path = tmp_path / 'a.pth'
    expected = _save(path, _randomize(MODELS.build(config)))
    config = dict(config, type=f'mmpretrain.{config["type"]}')
    with DefaultScope.overwrite_default_scope(scope):
        init_default_scope(scope)
        module = MODELS.build(dict(config, init_cfg=_init(path)))
        module.init_weights()
    for key, value in module.state_dict().items():
        assert torch.equal(value, expected[f'backbone.{key}']), key


def test_report_counts_and_names(tmp_path, log):
    path = tmp_path / 'a.pth'
    more = {
        'neck.fc.weight': torch.ones(1),
        'head.queue': torch.ones(1),
        'head.label_queue': torch.ones(1),
    }
    _save(path, MODELS.build(_resnet()), **more)
    stages = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1))
    config = _resnet(**stages, out_indices=(2,), init_cfg=_init(path))
    MODELS.build(config).init_weights()
    assert _report(log).splitlines() == [
        'Load report of ResNet: the checkpoint '
        f"{path} under the prefix 'backbone.'",
        '    matched: 258 of 258 tensors',
        '    missing: none',
        "    unused: 'backbone.layer4.' (60 keys), 'head.' (2 keys), "
        "'neck.' (1 key)",
    ]


@pytest.mark.parametrize('name', ['bn1.running_var', 'layer4.2.conv3.weight'])
def test_one_missing_tensor_is_refused(tmp_path, name):
    path = tmp_path / 'a.pth'
    _save(path, MODELS.build(_resnet()), without=[name])
    module = MODELS.build(_resnet(init_cfg=_init(path)))
    with pytest.raises(ValueError, match=f'missing are {name}[.].*prefixes'):
        module.init_weights()
    MODELS.build(
        _resnet(init_cfg=_init(path, allow_missing=name))
    ).init_weights()


def test_counts_of_batches_may_be_missing(tmp_path, log):
    path = tmp_path / 'a.pth'
    source = MODELS.build(_resnet())
    counts = [k for k in source.state_dict() if 'num_batches' in k]
    _save(path, source, without=counts)
    MODELS.build(_resnet(init_cfg=_init(path))).init_weights()
    assert 'matched: 265 of 318 tensors' in _report(log)
    assert 'missing: none' in _report(log)


def test_prefix_of_a_wrapped_encoder_is_named(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save({'module.encoder_q.conv1.weight': torch.ones(1)}, path)
    module = MODELS.build(_resnet(init_cfg=_init(path)))
    with pytest.raises(ValueError, match=r"'module\.encoder_q\.' \(1 key\)"):
        module.init_weights()


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / 'a.pth'
    _save(path, MODELS.build(_resnet()))
    path.write_bytes(path.read_bytes()[:-1000])
    module = MODELS.build(_resnet(init_cfg=_init(path)))
    with pytest.raises(ValueError, match='is damaged'):
        module.init_weights()


def test_another_shape_is_shown(tmp_path):
    path = tmp_path / 'a.pth'
    _save(path, MODELS.build(_resnet()))
    module = MODELS.build(dict(_resnet(init_cfg=_init(path)), stem_channels=4))
    with pytest.raises(ValueError, match=r'conv1.weight \(\(8, 3, 7, 7\) in'):
        module.init_weights()


@pytest.mark.parametrize('kind', ['Pretrained', 'mmpretrain.Pretrained'])
def test_none_leaves_random_weights(kind, log):
    init_cfg = dict(type=kind, checkpoint='none', prefix='backbone.')
    module = MODELS.build(_resnet(init_cfg=init_cfg))
    module.init_weights()
    # What mmpretrain does for a ResNet without weights.
    assert module.layer1[0].bn3.weight.abs().max() == 0
    fan_out = 8 * 7 * 7
    std = module.conv1.weight.std().item()
    assert std == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert 'the weights are random' in _report(log)


def test_shared_head_of_c4_is_filled_from_the_backbone(tmp_path, log):
    pytest.importorskip('mmdet')
    path = tmp_path / 'a.pth'
    source = dict(type='ResNet', depth=50)
    expected = _save(path, _randomize(MODELS.build(source)))
    with DefaultScope.overwrite_default_scope('mmdet'):
        init_default_scope('mmdet')
        head = MODELS.build(
            dict(
                type='mmdet.ResLayerExtraNorm',
                depth=50,
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                norm_eval=False,
                init_cfg=_init(path, allow_missing=('norm.',)),
            )
        )
        head.init_weights()
    own = head.state_dict()
    for key, value in own.items():
        if key.startswith('layer4.'):
            assert torch.equal(value, expected[f'backbone.{key}']), key
    assert torch.equal(own['norm.weight'], torch.ones(2048))
    report = _report(log)
    assert 'matched: 60 of 65 tensors' in report
    assert (
        'missing: norm.weight, norm.bias, norm.running_mean, '
        'norm.running_var (allowed)'
    ) in report
    assert "'backbone.layer3.' (114 keys)" in report
