"""The models that come with the project reach the scores of their metafile."""

from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS

from mmunimoco import safe_checkpoints  # noqa: F401  (mmunimoco://)
from mmunimoco.__main__ import main
from mmunimoco.engine.launch import build_runner
from mmunimoco.utils.installed import find_weights

ROOT = Path(__file__).parents[2]
METAFILE = yaml.safe_load((ROOT / 'configs/demo/metafile.yml').read_text())
MODELS_WITH_WEIGHTS = [x for x in METAFILE['Models'] if 'Weights' in x]


def test_there_is_a_model_for_each_share_of_labels():
    assert len(MODELS_WITH_WEIGHTS) == 3
    for model in MODELS_WITH_WEIGHTS:
        assert find_weights(model['Name']) == ROOT / model['Weights']
    with pytest.raises(ValueError, match="no weights of 'resnet', only of"):
        find_weights('resnet')


@pytest.mark.parametrize(
    'model',
    [
        MODELS_WITH_WEIGHTS[0],
        *(
            pytest.param(x, marks=pytest.mark.slow)
            for x in MODELS_WITH_WEIGHTS[1:]
        ),
    ],
    ids=lambda x: x['Name'],
)
def test_score_of_the_metafile(model, tmp_path):
    """kNN; in half precision some of 2000 images go to another class."""
    cfg = Config.fromfile(ROOT / model['Config'])
    cfg.work_dir = str(tmp_path)
    cfg.load_from = f'mmunimoco://{model["Name"]}'
    found = build_runner(cfg, verbose=False).test()['knn/top1']
    (result,) = model['Results']
    assert found == pytest.approx(result['Metrics']['kNN top-1'], abs=0.25)


def test_starts_a_classifier():
    name = MODELS_WITH_WEIGHTS[0]['Name']
    cfg = Config.fromfile(ROOT / 'configs/demo/resnet18_linear_fmnist.py')
    backbone = cfg.model.backbone
    backbone.init_cfg.checkpoint = f'mmunimoco://{name}'
    built = MODELS.build(backbone)
    built.init_weights()
    state = CheckpointLoader.load_checkpoint(f'mmunimoco://{name}')
    weight = state['backbone.conv1.weight']
    assert weight.dtype == torch.float16
    torch.testing.assert_close(built.conv1.weight.data, weight.float())


def test_embed_takes_its_name(tmp_path, capsys):
    from image_folders import write_image_folder

    folder = write_image_folder(tmp_path / 'images', 2, 2, size=40)
    arguments = ['embed', f'mmunimoco://{MODELS_WITH_WEIGHTS[0]["Name"]}']
    target = tmp_path / 'features.npz'
    assert main([*arguments, str(folder), '--out', str(target)]) == 0
    assert '4 x 128 features' in capsys.readouterr().out
