"""Backbones as ONNX files, run by the reference implementation of ONNX."""

import numpy as np
import pytest
import torch
from foreign_checkpoints import randomize
from mmpretrain.registry import MODELS

from mmunimoco.converters import export
from mmunimoco.evaluation.features import pool

NARROW = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
CFG = """
model = dict(
    backbone={backbone!r},
    data_preprocessor=dict(
        mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 70.0], to_rgb={to_rgb}))
"""


def write(path, to_rgb=True, **backbone):
    """Write a checkpoint; return its backbone."""
    model = randomize(MODELS.build(dict(backbone)))
    state = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    cfg = CFG.format(backbone=backbone, to_rgb=to_rgb)
    torch.save(dict(meta=dict(cfg=cfg), state_dict=state), path)
    model.eval()  # of mmpretrain's ResNet it returns None
    return model


@pytest.mark.parametrize('to_rgb', [True, False])
def test_features_of_images_of_another_size(tmp_path, to_rgb):
    """Normalised in the file; batch and size are free."""
    onnx = pytest.importorskip('onnx')
    reference = pytest.importorskip('onnx.reference')
    norm = dict(type='SplitBatchNorm', num_splits=2)
    model = write(tmp_path / 'a.pth', to_rgb, **NARROW, norm_cfg=norm)
    export(tmp_path / 'a.pth', tmp_path / 'a.onnx', 'onnx')
    (declared,) = onnx.load(tmp_path / 'a.onnx').graph.input
    sizes = declared.type.tensor_type.shape.dim
    assert [size.dim_param for size in sizes] == ['N', '', 'H', 'W']
    images = np.random.default_rng(0).uniform(0, 255, (3, 3, 32, 48))
    images = images.astype(np.float32)
    run = reference.ReferenceEvaluator(str(tmp_path / 'a.onnx')).run
    (found,) = run(None, dict(images=images))
    x = torch.from_numpy(images)
    x = x if to_rgb else x.flip(1)
    mean = torch.tensor([120.0, 110.0, 100.0]).view(-1, 1, 1)
    std = torch.tensor([50.0, 60.0, 70.0]).view(-1, 1, 1)
    with torch.no_grad():
        expected = pool(model((x - mean) / std))
    torch.testing.assert_close(
        torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4
    )


def test_images_of_a_vit_have_its_size(tmp_path):
    reference = pytest.importorskip('onnx.reference')
    arch = dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
    )
    model = write(
        *(tmp_path / 'a.pth',),
        **dict(type='VisionTransformer', arch=arch, img_size=32),
        patch_size=16,
    )
    known = dict(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True)
    export(tmp_path / 'a.pth', tmp_path / 'a.onnx', 'onnx', 'query', known)
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32))
    images = images.astype(np.float32)
    run = reference.ReferenceEvaluator(str(tmp_path / 'a.onnx')).run
    (found,) = run(None, dict(images=images))
    with torch.no_grad():
        expected = pool(model(torch.from_numpy(images)))
    torch.testing.assert_close(
        torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4
    )


def test_what_is_missing_is_named(tmp_path):
    pytest.importorskip('onnx')
    state = {'backbone.conv1.weight': torch.zeros(1)}
    path, target = tmp_path / 'a.pth', tmp_path / 'a.onnx'
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match='give --mean and --std'):
        export(path, target, 'onnx')
    known = dict(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True)
    with pytest.raises(ValueError, match='does not bear the config'):
        export(path, target, 'onnx', normalization=known)
    for kind in ('os.system', 'builtins.print'):
        config = dict(type='ResNet', depth=18, norm_cfg=dict(type=kind))
        cfg = CFG.format(backbone=config, to_rgb=True)
        torch.save(dict(meta=dict(cfg=cfg), state_dict=state), path)
        with pytest.raises(ValueError, match=f"names '{kind}'"):
            export(path, target, 'onnx')
    assert not target.exists()
