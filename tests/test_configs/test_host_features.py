"""mmpretrain, mmdet and mmseg compute the same from the same checkpoint."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.registry import MODELS
from small_configs import save_pretrained

import mmunimoco  # noqa: F401  registers the initializer

CONFIGS = Path(__file__).parents[2] / 'configs'
HOSTS = dict(
    mmpretrain='_base_/models/classifier_resnet50.py',
    mmdet='benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py',
    mmseg='benchmarks/mmsegmentation/ade20k/'
    'upernet_r50_4xb4-80k_ade20k-512x512.py',
)


@pytest.mark.parametrize('host', HOSTS)
@torch.no_grad()
def test_features_are_those_of_pre_training(host, tmp_path, monkeypatch):
    pytest.importorskip(host)
    path = tmp_path / 'r50.pth'
    plain = dict(type='ResNet', depth=50, out_indices=(0, 1, 2, 3))
    state = save_pretrained(path, plain)
    expected = MODELS.build(plain)
    expected.load_state_dict(state)
    monkeypatch.setenv('PRETRAINED', str(path))
    config = Config.fromfile(CONFIGS / HOSTS[host]).model.backbone
    config.out_indices = (0, 1, 2, 3)
    config.init_cfg = dict(
        type='mmpretrain.Pretrained', checkpoint=str(path), prefix='backbone.'
    )
    with DefaultScope.overwrite_default_scope(host):
        init_default_scope(host)
        backbone = MODELS.build({**config, 'type': f'{host}.{config.type}'})
        backbone.init_weights()
    image = torch.randn(1, 3, 64, 96)
    # These modes return nothing.
    backbone.eval()
    expected.eval()
    found, expected = backbone(image), expected(image)
    assert len(found) == 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
