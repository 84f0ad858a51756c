"""The three hosts compute the same from the same checkpoint."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.registry import MODELS

import mmunimoco  # noqa: F401  registers the initializer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks'
CONFIGS = dict(
    mmpretrain=ROOT / 'configs/_base_/models/classifier_resnet50.py',
    mmdet=FOLDER / 'mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py',
    mmseg=FOLDER
    / 'mmsegmentation/ade20k/upernet_r50_4xb4-80k_ade20k-512x512.py',
)


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """Path of a ResNet-50 as pre-training leaves it, and the ResNet."""
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(type='ResNet', depth=50, out_indices=(0, 1, 2, 3))
        )
        model.init_weights()
    state = model.state_dict()
    for value in state.values():
        # Norms as no fresh network has them.
        if value.ndim == 1:
            value.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp('features') / 'r50.pth'
    state = {f'backbone.{key}': value for key, value in state.items()}
    torch.save(dict(state_dict=state), path)
    model.eval()  # which returns nothing
    return path, model


@pytest.mark.parametrize('host', CONFIGS)
@torch.no_grad()
def test_features_are_those_of_pre_training(host, pretrained, monkeypatch):
    pytest.importorskip(host)
    path, expected = pretrained
    monkeypatch.setenv('PRETRAINED', str(path))
    config = Config.fromfile(CONFIGS[host]).model.backbone
    config.out_indices = (0, 1, 2, 3)
    config.init_cfg = dict(
        type='mmpretrain.Pretrained', checkpoint=str(path), prefix='backbone.'
    )
    with DefaultScope.overwrite_default_scope(host):
        init_default_scope(host)
        backbone = MODELS.build({**config, 'type': f'{host}.{config.type}'})
        backbone.init_weights()
    backbone.eval()
    image = torch.randn(1, 3, 64, 96)
    found = backbone(image)
    assert len(found) == 4
    for one, other in zip(found, expected(image), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
