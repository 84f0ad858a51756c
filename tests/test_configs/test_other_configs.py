"""Other configs (demo, detection, segmentation) resolve and build."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import LogProcessor
from mmpretrain.registry import MODELS, TRANSFORMS

ROOT = Path(__file__).parents[2]
# These take a step in test_train_step.py and test_classification.py.
STEPPED = (
    'unimoco',
    'unimoco/ablations',
    'mocov2',
    'supcon',
    'benchmarks/classification',
)
PATHS = [
    path
    for path in sorted(ROOT.glob('configs/**/*.py'))
    if '_base_' not in path.parts
    and path.parent.relative_to(ROOT / 'configs').as_posix() not in STEPPED
]
HOSTS = dict(mmdetection='mmdet', mmsegmentation='mmseg')


def pipelines(node):
    """Yield every list called ``pipeline`` in nested dicts and lists."""
    if isinstance(node, dict):
        if isinstance(node.get('pipeline'), list):
            yield node['pipeline']
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from pipelines(item)


@pytest.mark.parametrize('path', PATHS, ids=[p.stem for p in PATHS])
def test_resolves_and_builds(path):
    for folder, host in HOSTS.items():
        text = f'{path} {path.read_text()}'
        inherits = f'/{folder}/' in text or f"'{host}::" in text
        if inherits and find_spec(host) is None:
            pytest.skip(f'needs {host}, which is not installed')
    cfg = Config.fromfile(path)
    if cfg.get('default_scope') != 'mmpretrain':
        return  # its models are built by the tests of its host
    init_default_scope('mmpretrain')
    MODELS.build(cfg.model)
    steps = [step for steps in pipelines(cfg.to_dict()) for step in steps]
    assert steps
    for step in steps:
        TRANSFORMS.build(step)


def test_what_a_batch_measures_is_logged_as_a_mean():
    cfg = Config.fromfile(ROOT / 'configs/demo/unimoco_resnet18_fmnist.py')
    pattern = LogProcessor(**cfg.log_processor).mean_pattern
    means = (
        'loss',
        'time',
        'data_time',
        'grad_norm',
        'top1_labeled',
        'top1_unlabeled',
        'positives_per_labeled_query',
        'positive_similarity',
        'negative_similarity',
    )
    # A score of all images, and states.
    others = ('knn/top1', 'knn/top1_k200', 'accuracy/top1', 'memory', 'lr')
    others += ('labeled_queue_share',)
    assert all(pattern.search(name) for name in means)
    assert not any(pattern.search(name) for name in others)
