"""Backbones of this project, exported for other projects."""

import io
import json
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from foreign_checkpoints import (
    assert_same_features,
    moco_checkpoint,
    randomize,
)
from mmengine.config import Config
from mmpretrain.registry import MODELS
from small_unimoco import build_unimoco
from torch import nn

from mmunimoco.converters import export, hugging_face, to_mmunimoco
from mmunimoco.converters.hugging_face import config_of
from mmunimoco.converters.known_options import check_options
from mmunimoco.converters.resnet import read_resnet
from mmunimoco.converters.timm_model import TimmModel, to_timm
from mmunimoco.utils.normalization import IMAGENET

CONFIGS = Path(__file__).parents[2] / 'configs'
CFG = """
model = dict(
    backbone={backbone!r},
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        to_rgb=True))
"""
VIT = dict(type='MoCoV3ViT', arch='mocov3-small', img_size=224, patch_size=16)


def assert_same_model(model, backbone):
    """Both give the same pooled features of the same images."""
    is_vit = 'VIT' in type(backbone).__name__.upper()
    shape = (1, 3, 224, 224) if is_vit else (2, 3, 64, 64)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    expected = backbone(x)[-1]
    if not is_vit:
        expected = expected.mean(dim=(2, 3))
    assert_same_features(model.eval()(x), expected)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Write a checkpoint with a backbone; return the path and the backbone."""
    folder = tmp_path_factory.mktemp('trained')
    built = {}

    def write(name, **config):
        if name not in built:
            config = config or dict(type='ResNet', depth=int(name))
            model = randomize(MODELS.build(dict(config)))
            state = {f'backbone.{k}': v for k, v in model.state_dict().items()}
            state['neck.mlp.0.weight'] = torch.ones(2, 2)
            meta = dict(cfg=CFG.format(backbone=config), epoch=5)
            torch.save(
                dict(meta=meta, state_dict=state), folder / f'{name}.pth'
            )
            built[name] = model
        return str(folder / f'{name}.pth'), built[name]

    return write


@torch.no_grad()
def test_torchvision(trained, tmp_path):
    source, backbone = trained('50')
    export(source, tmp_path / 'r50.pth', 'torchvision')
    model = torchvision.models.resnet50()
    model.fc = nn.Identity()
    state = torch.load(tmp_path / 'r50.pth', weights_only=True)
    model.load_state_dict(state, strict=True)
    assert_same_model(model, backbone)
    back = to_mmunimoco(state, 'torchvision')['state_dict']
    for key, value in backbone.state_dict().items():
        assert torch.equal(back[f'backbone.{key}'], value), key


@pytest.mark.parametrize(
    'name, form', [('50', 'timm'), ('18', 'safetensors'), ('vit', 'timm')]
)
@torch.no_grad()
def test_timm(trained, tmp_path, name, form):
    timm = pytest.importorskip('timm')
    config = VIT if name == 'vit' else {}
    source, backbone = trained(name, **config)
    path = tmp_path / f'weights.{form}'
    export(source, path, form)
    args = dict(num_classes=0, checkpoint_path=str(path))
    architecture = f'resnet{name}'
    if name == 'vit':
        architecture, args['num_heads'] = 'vit_small_patch16_224', 12
    model = timm.create_model(architecture, **args)
    assert_same_model(model, backbone)


@torch.no_grad()
def test_number_of_heads_of_a_vit(trained, tmp_path):
    """The weights load with timm's 6 heads too, but give other features."""
    timm = pytest.importorskip('timm')
    safetensors = pytest.importorskip('safetensors')
    source, backbone = trained('vit', **VIT)
    path = tmp_path / 'vit.safetensors'
    usage = export(source, path, 'safetensors')['usage']
    call = usage.removeprefix('load it with ')
    assert "'vit_small_patch16_224', num_classes=0, num_heads=12" in call
    assert_same_model(eval(call, dict(timm=timm)), backbone)
    with safetensors.safe_open(path, 'pt') as file:
        header = file.metadata()
    assert header['architecture'] == 'vit_small_patch16_224'
    assert json.loads(header['model_args']) == dict(num_heads=12)
    assert json.loads(header['normalization']) == IMAGENET
    checkpoint = torch.load(source, weights_only=True)
    torch.save(dict(checkpoint, meta={}), tmp_path / 'bare.pth')
    result = export(tmp_path / 'bare.pth', tmp_path / 'bare', 'timm')
    assert 'and num_heads=...' in result['usage']


def arch(width, layers=12):
    return dict(
        embed_dims=width,
        num_layers=layers,
        num_heads=3,
        feedforward_channels=4 * width,
    )


@pytest.mark.parametrize(
    ('arch', 'name', 'heads'),
    [
        ('deit-small', 'vit_small_patch16_224', 6),
        ('base', 'vit_base_patch16_224', 12),
        (arch(192), 'vit_tiny_patch16_224', 3),
        (arch(192, layers=11), None, 3),
    ],
)
def test_heads_of_other_vits_are_those_of_the_config(arch, name, heads):
    config = dict(type='VisionTransformer', arch=arch, img_size=224)
    config['patch_size'] = 16
    with torch.device('meta'):
        state = MODELS.build(dict(config)).state_dict()
    meta = dict(cfg=CFG.format(backbone=config))
    if name is None:
        with pytest.raises(ValueError, match='not a complete vit_tiny'):
            to_timm(state, meta)
        return
    model, _ = to_timm(state, meta)
    assert (model.name, model.args) == (name, dict(num_heads=heads))


def test_card_says_which_encoder_and_where_it_is_from(tmp_path):
    pytest.importorskip('safetensors')
    checkpoint = to_mmunimoco(moco_checkpoint()[0])
    torch.save(checkpoint, tmp_path / 'moco.pth')
    export(
        *(tmp_path / 'moco.pth', tmp_path / 'hub', 'huggingface', 'momentum')
    )
    card = ' '.join((tmp_path / 'hub/README.md').read_text().split())
    assert '(momentum encoder)' in card and 'from weights of moco.' in card


@pytest.mark.parametrize('name', ['18', 'vit'])
@torch.no_grad()
def test_hugging_face_folder(trained, tmp_path, name):
    timm = pytest.importorskip('timm')
    source, backbone = trained(name, **(VIT if name == 'vit' else {}))
    folder = tmp_path / 'hub'
    export(source, folder, 'huggingface')
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    assert_same_model(model, backbone)
    data = timm.data.resolve_model_data_config(model)
    assert data['mean'] == pytest.approx((0.485, 0.456, 0.406))
    assert data['std'] == pytest.approx((0.229, 0.224, 0.225))
    card = (folder / 'README.md').read_text()
    assert card.startswith('---\nlibrary_name: timm\n')
    assert (
        f'{model.num_features} numbers per image' in card and 'epoch 5' in card
    )

    saved = json.loads((folder / 'config.json').read_text())
    known = timm.get_pretrained_cfg(saved['architecture'])
    for field in ('first_conv', 'classifier', 'fixed_input_size'):
        assert saved['pretrained_cfg'][field] == getattr(known, field)
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1

    with pytest.raises(FileExistsError, match='README.md exists already'):
        export(source, folder, 'huggingface')
    (folder / 'README.md').unlink()
    with pytest.raises(FileExistsError, match='safetensors exists already'):
        export(source, folder, 'huggingface')
    export(source, folder, 'huggingface', force=True)
    assert {path.name for path in folder.iterdir()} == {
        'README.md',
        'config.json',
        'model.safetensors',
    }


class Conv(nn.Conv2d):
    """That of detectron2, with the norm as its part."""

    def __init__(self, inputs, outputs, kernel, stride=1):
        padding = kernel // 2
        super().__init__(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(super().forward(x))


class Bottleneck(nn.Module):
    """detectron2's BottleneckBlock, STRIDE_IN_1X1 False."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.shortcut = None
        if inputs != 4 * width:
            self.shortcut = Conv(inputs, 4 * width, 1, stride)
        self.conv1 = Conv(inputs, width, 1)
        self.conv2 = Conv(width, width, 3, stride)
        self.conv3 = Conv(width, 4 * width, 1)

    def forward(self, x):
        out = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        short = x if self.shortcut is None else self.shortcut(x)
        return (out + short).relu()


class Detectron2ResNet50(nn.Module):
    """The keys that detectron2 documents: stem.conv1, res2.0.conv1.norm ..."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv1 = Conv(3, 64, 7, 2)
        inputs = 64
        for i, blocks in enumerate((3, 4, 6, 3)):
            width, stride = 64 * 2**i, 1 if i == 0 else 2
            stage = [Bottleneck(inputs, width, stride)]
            inputs = 4 * width
            stage += [Bottleneck(inputs, width, 1) for _ in range(blocks - 1)]
            self.add_module(f'res{i + 2}', nn.Sequential(*stage))

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem.conv1(x).relu(), 3, 2, 1)
        return self.res5(self.res4(self.res3(self.res2(x))))


class OnlyArrays(pickle.Unpickler):
    """Loads only what every numpy release has."""

    def find_class(self, module, name):
        assert (module, name) in (('numpy', 'ndarray'), ('numpy', 'dtype'))
        return super().find_class(module, name)


@torch.no_grad()
def test_hugging_face_export_that_fails_leaves_nothing(
    trained, tmp_path, monkeypatch
):
    (source, _), folder = trained('18'), tmp_path / 'hub'

    def fail(*_):
        raise OSError('No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(hugging_face, 'write_safetensors', fail)
        with pytest.raises(OSError, match='No space'):
            export(source, folder, 'huggingface')
    assert not list(folder.iterdir())
    export(source, folder, 'huggingface')
    assert len(list(folder.iterdir())) == 3


def test_detectron2(trained, tmp_path):
    source, backbone = trained('50')
    path = tmp_path / 'r50.pkl'
    export(source, path, 'detectron2')
    content = OnlyArrays(io.BytesIO(path.read_bytes())).load()
    assert content['matching_heuristics'] is True
    assert content['__author__'] == 'mmunimoco'
    model = Detectron2ResNet50().eval()
    arrays = content['model']
    model.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})
    pooled = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert_same_model(pooled, backbone)


@pytest.mark.parametrize('encoder', ['query', 'momentum'])
def test_backbone_for_openmmlab(tmp_path, encoder):
    model = randomize(build_unimoco())
    text = 'data_preprocessor = dict(mean=[73.0] * 3, std=[9, 9, 9])'
    source = tmp_path / 'epoch_1.pth'
    meta = dict(cfg=text, epoch=1)
    torch.save(dict(meta=meta, state_dict=model.state_dict()), source)
    path = tmp_path / 'new' / 'backbone.pth'
    # The mean in the config is not a literal.
    given = dict(mean=[73.0] * 3, std=[9.0] * 3, to_rgb=False)
    export(str(source), path, 'backbone', encoder, given)
    with pytest.raises(FileExistsError, match='--force overwrites'):
        export(str(source), path, 'backbone')
    saved = torch.load(path, weights_only=True)
    assert saved['meta'] == {**meta, 'normalization': given}
    wanted = model.backbone
    if encoder == 'momentum':
        wanted = model.encoder_k.module[0]
    target = MODELS.build(
        dict(
            type='ResNet',
            depth=18,
            stem_channels=8,
            base_channels=8,
            init_cfg=dict(
                type='Pretrained', checkpoint=str(path), prefix='backbone.'
            ),
        )
    )
    target.init_weights()
    assert len(saved['state_dict']) == len(wanted.state_dict())
    for key, value in wanted.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key
    assert [p.name for p in path.parent.iterdir()] == ['backbone.pth']
    # The graphs that serve a backbone elsewhere.
    x = torch.randn(2, 3, 64, 64)
    target.eval()
    with torch.no_grad():
        (features,) = target(x)
        (traced,) = torch.jit.trace(target, x)(x)
        (exported,) = torch.export.export(target, (x,)).module()(x)
    torch.testing.assert_close(traced, features)
    torch.testing.assert_close(exported, features)


@pytest.mark.parametrize(
    'name, config, form, message',
    [
        (
            'narrow',
            dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
            'timm',
            '7x7 stem of 8 and blocks of 8 channels',
        ),
        (
            'cifar',
            dict(type='ResNet_CIFAR', depth=18),
            'detectron2',
            'that of detectron2 has a 7x7 stem',
        ),
        (
            'caffe',
            dict(type='ResNet', depth=50, style='caffe'),
            'torchvision',
            "style='caffe'",
        ),
        ('vit', VIT, 'torchvision', 'not a plain ResNet'),
        ('vit', VIT, 'detectron2', 'not a plain ResNet'),
        ('v1d', dict(type='ResNetV1d', depth=18), 'timm', 'is a ResNetV1d;'),
    ],
)
def test_backbone_without_counterpart(
    trained, tmp_path, name, config, form, message
):
    source, _ = trained(name, **config)
    with pytest.raises(ValueError, match=message):
        export(source, tmp_path / 'out', form)
    assert not list(tmp_path.iterdir())


R18, LN = dict(type='ResNet', depth=18), dict(type='LN', eps=1e-6)


@pytest.mark.parametrize(
    'base, changes',
    [
        (R18, dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))),
        (R18, dict(strides=(1, 2, 2, 1))),
        (R18, dict(avg_down=True)),
        (R18, dict(deep_stem=True)),
        (R18, dict(style='caffe')),
        (R18, dict(conv_cfg=dict(type='ConvWS'))),
        (R18, dict(norm_cfg=dict(type='BN', eps=1e-3))),
        (R18, dict(norm_cfg=dict(type='GN', num_groups=8))),
        (R18, dict(norm_cfg=dict(type='BN', track_running_stats=False))),
        (R18, dict(out_indices=(2,))),
        (R18, dict(option_of_tomorrow=0)),
        (VIT, dict(norm_cfg=dict(type='LN'))),  # torch's eps
        (VIT, dict(out_type='featmap')),
        (VIT, dict(out_indices=[5])),
        (VIT, dict(qkv_bias=False)),
        (VIT, dict(pre_norm=True)),
        (VIT, dict(layer_cfgs=dict(act_cfg=dict(type='ReLU')))),
        (VIT, dict(patch_cfg=dict(padding=2))),
    ],
)
def test_options_that_change_the_features_are_refused_by_name(base, changes):
    """Most of them change neither keys nor shapes of the weights."""
    with pytest.raises(ValueError, match='keeps the names') as caught:
        check_options({**base, **changes})
    for name in changes:
        assert f'{name}=' in str(caught.value)


@pytest.mark.parametrize(
    'backbone',
    [
        {},  # not known
        dict(R18, norm_cfg=dict(type='SplitBatchNorm', num_splits=8)),
        dict(R18, norm_cfg=dict(type='SyncBN', requires_grad=True)),
        dict(R18, strides=(1, 2, 2, 2), dilations=[1, 1, 1, 1], with_cp=True),
        dict(R18, type='mmpretrain.ResNet', out_indices=(0, 1, 2, 3)),
        dict(VIT, norm_cfg=LN, out_indices=[-1], drop_path_rate=0.1),
    ],
)
def test_options_without_effect_pass(backbone):
    check_options(backbone)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('unimoco/*.py')))
def test_shipped_backbones_pass(path):
    check_options(Config.fromfile(path).model.backbone.to_dict())


@torch.no_grad()
def test_a_dilated_resnet_has_the_weights_of_a_plain_one(trained, tmp_path):
    options = dict(R18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    source, backbone = trained('dilated', **options)
    plain = torchvision.models.resnet18()
    plain.fc = nn.Identity()
    plain.load_state_dict(backbone.state_dict())
    with pytest.raises(AssertionError):
        assert_same_model(plain, backbone)
    for form in ('torchvision', 'timm', 'safetensors', 'huggingface'):
        with pytest.raises(ValueError, match=r'strides=.*dilations='):
            export(source, tmp_path / 'out', form)
    assert not list(tmp_path.iterdir())
    export(source, tmp_path / 'out', 'backbone')


@pytest.mark.parametrize(
    'given, message',
    [
        ({}, 'not known; give it by --mean and --std'),
        (dict(normalization={**IMAGENET, 'to_rgb': False}), 'BGR'),
    ],
)
def test_hub_needs_the_normalization(trained, tmp_path, given, message):
    _, backbone = trained('18')
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    source = tmp_path / 'a.pth'
    torch.save(dict(meta=given, state_dict=state), source)
    with pytest.raises(ValueError, match=message):
        export(str(source), tmp_path / 'hub', 'huggingface')
    assert not (tmp_path / 'hub').exists()


def test_hub_needs_the_heads_of_a_vit():
    model = TimmModel('vit_small_patch16_224', 384)
    with pytest.raises(ValueError, match='number of heads of a ViT'):
        config_of(model, dict(normalization=IMAGENET))


@pytest.mark.parametrize('depth', [18, 34, 50, 101])
def test_depth_from_shapes(depth):
    with torch.device('meta'):
        model = getattr(torchvision.models, f'resnet{depth}')()
    width, model.fc = model.fc.in_features, nn.Identity()
    shape = read_resnet(model.state_dict())
    assert shape.depth == depth and shape.is_standard
    assert to_timm(model.state_dict(), {})[0].num_features == width


def test_missing_encoder(trained, tmp_path):
    source, _ = trained('18')
    with pytest.raises(ValueError, match=r"'encoder_k\.module\.0\.'.*'neck"):
        export(source, tmp_path / 'a', 'backbone', 'momentum')
