"""mmpretrain's own tools and API work on runs of this project."""

import runpy
import sys
from inspect import signature
from pathlib import Path

import mmpretrain
import pytest
import torch
from exact_runs import TRAIN, run, write_config
from mmengine.config import Config
from mmengine.utils import digit_version
from mmpretrain.apis import FeatureExtractor, get_model
from sklearn.manifold import TSNE

from mmunimoco.evaluation.features import pool

TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Config and work folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp('run')
    config = write_config(folder, 0, 'interval=1')
    assert run(TRAIN, config, '--work-dir', folder / 'work') == 0
    return config, folder / 'work'


@pytest.fixture
def call(monkeypatch):
    """Return a function that runs a tool in this process."""

    def call(tool, *arguments):
        path = str(TOOLS / tool)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, arguments)])
        runpy.run_path(path, run_name='__main__')

    return call


def test_complexity_and_logs(finished, tmp_path, call, capsys):
    config, work_dir = finished
    call('analysis_tools/get_flops.py', config)
    assert 'Flops' in capsys.readouterr().out
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    figure = tmp_path / 'loss.png'
    call(
        'analysis_tools/analyze_logs.py',
        *('plot_curve', log, '--keys', 'loss', '--out', figure),
    )
    assert figure.stat().st_size > 1000


@pytest.mark.skipif(
    'n_iter' not in signature(TSNE).parameters
    and digit_version(mmpretrain.__version__) < digit_version('1.3'),
    reason="mmpretrain 1.2's vis_tsne.py fails with scikit-learn >= 1.7",
)
def test_embedding(finished, tmp_path, call):
    config, work_dir = finished
    call(
        'visualization/vis_tsne.py',
        *(config, '--checkpoint', work_dir / 'epoch_2.pth'),
        *('--work-dir', tmp_path),
        *('--perplexity', 5, '--n-iter', 250, '--max-num-samples', 5),
    )
    assert list(tmp_path.rglob('*.png'))


def test_feature_extractor_gives_the_features_of_knn(finished):
    config, work_dir = finished
    cfg = Config.fromfile(config)
    model = get_model(cfg, str(work_dir / 'epoch_2.pth'), device='cpu')
    image = torch.randint(256, (28, 28, 3), dtype=torch.uint8).numpy()
    extract = FeatureExtractor(model, device='cpu')
    (features,) = extract(image)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = pool(model.backbone((batch - 73) / 90))[0]
    torch.testing.assert_close(pool(features[-1][None])[0], expected)
