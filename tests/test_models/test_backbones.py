"""One training step with each backbone of mmpretrain, and what misfits."""

import math

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.models import backbones
from mmpretrain.registry import MODELS
from small_unimoco import (
    DIM,
    SGD,
    build_unimoco,
    data_samples,
    draw_batches,
    train_step,
    trained_parameters,
    unimoco_config,
)

# Name: options of the backbone, the neck's in_channels, image size if it works
# with no less. The smallest architecture of each.
MAPS = {  # return (N, C, H, W)
    'AlexNet': ({}, 256, 64),
    'VGG': (dict(depth=11), 512),
    'RegNet': (dict(arch='regnetx_400mf'), 384),
    'ResNet': (dict(depth=18), 512),
    'ResNeXt': (dict(depth=50), 2048),
    'ResNetV1d': (dict(depth=50), 2048),
    'ResNetV1c': (dict(depth=50), 2048),
    'ResNeSt': (dict(depth=50), 2048),
    'ResNet_CIFAR': (dict(depth=18), 512),
    'SEResNet': (dict(depth=50), 2048),
    'SEResNeXt': (dict(depth=50), 2048),
    'Res2Net': (dict(depth=50), 2048),
    'ShuffleNetV1': ({}, 960),
    'ShuffleNetV2': (dict(widen_factor=0.5), 1024),
    'MobileNetV2': (dict(widen_factor=0.5), 1280),
    'MobileNetV3': (dict(arch='small_050'), 288),
    'MobileOne': (dict(arch='s0'), 1024),
    'MobileViT': (dict(arch='xx_small'), 320),
    'EfficientNet': (dict(arch='b0'), 1280),
    'EfficientNetV2': (dict(arch='b0'), 1280),
    'RepVGG': (dict(arch='A0'), 1280),
    'RepLKNet': (dict(arch='31B'), 1024),
    'RepMLPNet': (
        dict(arch='b', img_size=32, reparam_conv_kernels=(1, 3)),
        768,
    ),
    'ConvMixer': (dict(arch='768/32'), 768),
    'CSPDarkNet': (dict(depth=53), 1024),
    'CSPResNet': (dict(depth=50), 1024),
    'CSPResNeXt': (dict(depth=50), 2048),
    'DenseNet': (dict(arch='121'), 1024),
    'PoolFormer': (dict(arch='s12'), 512),
    'RIFormer': (dict(arch='s12'), 512),
    'VAN': (dict(arch='tiny'), 256),
    'PCPVT': (dict(arch='small'), 512),
    'SVT': (dict(arch='small'), 512),
    'SwinTransformer': (
        dict(arch='tiny', img_size=32, pad_small_map=True),
        768,
    ),
    'SwinTransformerV2': (
        dict(arch='tiny', img_size=64, window_size=2),
        768,
        64,
    ),
    'DaViT': (dict(arch='t', pad_small_map=True), 768),
    'MViT': (dict(arch='tiny', img_size=32), 768),
    'LeViT': (dict(arch='128s', img_size=64), 384, 64),
    'HiViT': (dict(arch='tiny', img_size=64), 384, 64),
    'ViTSAM': (
        dict(
            arch=dict(
                embed_dims=64,
                num_layers=2,
                num_heads=2,
                feedforward_channels=64,
                global_attn_indexes=[1],
            ),
            img_size=32,
        ),
        256,
    ),
    'EfficientFormer': (dict(arch='l1', reshape_last_feat=True), 448, 224),
    'Vig': (dict(arch='tiny'), 192, 224),
    'PyramidVig': (dict(arch='tiny'), 384, 224),
}
VECTORS = {  # return (N, C)
    'ConvNeXt': (dict(arch='atto'), 320),
    'EdgeNeXt': (dict(arch='xxsmall'), 168),
    'HorNet': (dict(arch='tiny'), 512),
    'TinyViT': (dict(arch='5m', img_size=(64, 64)), 320, 64),
    'VisionTransformer': (dict(arch='deit-tiny', img_size=32), 192),
    'DeiT3': (dict(arch='s', img_size=32), 384),
    'BEiTViT': (dict(arch='deit-tiny', img_size=32), 192),
    'ViTEVA02': (dict(arch='tiny', img_size=28), 192, 28),
    'RevVisionTransformer': (dict(arch='deit-tiny', img_size=32), 384),
    'TNT': (dict(arch='s', img_size=32), 384),
    'T2T_ViT': (
        dict(
            img_size=32,
            embed_dims=64,
            num_layers=2,
            t2t_cfg=dict(token_dims=16),
            layer_cfgs=dict(num_heads=4, feedforward_channels=64),
        ),
        64,
    ),
    'XCiT': (
        dict(
            patch_size=16,
            embed_dims=64,
            depth=2,
            num_heads=4,
            mlp_ratio=4,
            qkv_bias=True,
        ),
        64,
    ),
    'MixMIMTransformer': (
        dict(
            arch=dict(
                embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]
            )
        ),
        256,
        224,
    ),
}
# Returns (N, C, tokens), which LinearNeck averages.
TOKENS = {'MlpMixer': (dict(arch='s', img_size=32, patch_size=16), 512)}
# Large, and much like others that are not.
LARGE = {
    *('ResNeXt', 'ResNeSt', 'SEResNet', 'SEResNeXt', 'Res2Net', 'ResNetV1c'),
    *('ResNetV1d', 'MobileOne', 'RepLKNet', 'RepMLPNet', 'ConvMixer'),
    *('CSPDarkNet', 'CSPResNeXt', 'PCPVT', 'SVT', 'DaViT', 'HiViT'),
    *('SwinTransformerV2', 'EfficientFormer', 'Vig', 'PyramidVig'),
    *('HorNet', 'TinyViT', 'DeiT3', 'RevVisionTransformer', 'TNT'),
}
LEFT_OUT = {
    'LeNet5': 'takes gray images of 32 x 32 pixels only',
    'CSPNet': 'the base of CSPDarkNet, CSPResNet and CSPResNeXt',
    'TIMMBackbone': 'models of another package, which may not be installed',
    'HRNet': 'returns four outputs',
    'Conformer': 'returns two outputs, of its CNN and its transformer',
    'DistilledVisionTransformer': 'returns two tokens',
    'InceptionV3': 'returns the auxiliary output too',
    'SparseResNet': 'needs the mask of SparK',
    'SparseConvNeXt': 'needs the mask of SparK',
}


def build(name, options, width, **neck):
    """A UniMoCo with a backbone and, by default, the neck of MoCo v2."""
    neck = dict(type='MoCoV2Neck', hid_channels=8) | neck
    if neck['type'] != 'MoCoV2Neck':
        del neck['hid_channels']
    neck |= dict(in_channels=width, out_channels=DIM)
    backbone = dict(type=name, **options)
    torch.manual_seed(0)
    # The weights as torch draws them: mmengine's initialisers take longer.
    return MODELS.build(unimoco_config(backbone=backbone, neck=neck)).train()


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE))
        for name in (*MAPS, *VECTORS, *TOKENS)
    ],
)
def test_every_backbone_trains(name):
    options, width, *size = (MAPS | VECTORS | TOKENS)[name]
    neck = {}
    if name in VECTORS:
        neck = dict(with_avg_pool=False)
    elif name in TOKENS:
        neck = dict(type='LinearNeck', gap_dim=1)
    model = build(name, options, width, **neck)
    size = size[0] if size else 32
    views = torch.randn(2, 3, 3, size, size).unbind()
    optimizer = torch.optim.SGD(trained_parameters(model), **SGD)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    loss = train_step(model, optimizer, views, torch.tensor([0, 0, -1]))
    assert math.isfinite(loss)
    moved = {
        n.split('.')[0]
        for n, p in model.named_parameters()
        if not torch.equal(p, before[n])
    }
    assert moved >= {'backbone', 'neck'}


def test_no_backbone_is_forgotten():
    """Older releases have fewer of them."""
    assert set(backbones.__all__) <= {*MAPS, *VECTORS, *TOKENS, *LEFT_OUT}


def loss_of(model, size=32):
    ((_, labels),) = draw_batches(steps=1)
    views = torch.randn(2, 8, 3, size, size).unbind()
    return model(views, data_samples(labels), mode='loss')


def test_pooling_of_vectors_is_refused():
    model = build('ConvNeXt', dict(arch='atto'), 320)
    with pytest.raises(ValueError, match='with_avg_pool=False$'):
        loss_of(model)
    tokens = build('MlpMixer', *TOKENS['MlpMixer'])
    with pytest.raises(ValueError, match='out_type'):
        loss_of(tokens)


def test_another_width_is_refused_in_the_first_step():
    model = build(
        'VisionTransformer',
        VECTORS['VisionTransformer'][0],
        384,
        with_avg_pool=False,
    )
    with pytest.raises(ValueError, match='in_channels is 384, .* 192 numbers'):
        loss_of(model)
    unpooled = build('VGG', dict(depth=11), 256, with_avg_pool=False)
    with pytest.raises(ValueError, match='with_avg_pool=True'):
        loss_of(unpooled)


def test_an_earlier_stage_may_be_the_output():
    """Its width is another than that of the last stage."""
    model = build('ResNet', dict(depth=18, out_indices=(2,)), 256)
    assert loss_of(model)['loss'].isfinite()


def test_several_outputs_are_refused():
    model = build('ResNet', dict(depth=18, out_indices=(2, 3)), 512)
    with pytest.raises(ValueError, match='backbone returns 2 .*out_indices'):
        loss_of(model)


def test_other_failures_of_the_neck_are_shown_as_they_are(monkeypatch):
    model = build_unimoco()
    monkeypatch.setattr(
        model.neck.mlp[0], 'forward', lambda x: x @ torch.ones(3)
    )
    with pytest.raises(RuntimeError, match='size'):
        loss_of(model)


def test_four_channels_with_lars():
    """As TwoViewAugment's error says: normalised in the pipeline."""
    config = unimoco_config(
        data_preprocessor=dict(type='SelfSupDataPreprocessor')
    )
    config['backbone']['in_channels'] = 4
    model = MODELS.build(config).train()
    wrapper = build_optim_wrapper(
        model, dict(optimizer=dict(type='LARS', lr=0.5, momentum=0.9))
    )
    before = model.backbone.conv1.weight.detach().clone()
    ((_, labels),) = draw_batches(steps=1)
    inputs = list(torch.randn(2, 8, 4, 32, 32))
    data = dict(inputs=inputs, data_samples=data_samples(labels))
    logged = model.train_step(data, wrapper)
    assert math.isfinite(logged['loss'])
    changed = (model.backbone.conv1.weight - before).abs().amax(dim=(0, 2, 3))
    assert (changed > 0).all() and len(changed) == 4
