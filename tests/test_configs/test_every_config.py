"""Every shipped config resolves, and its parts can be built."""

import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from mmengine.runner import Runner
from small_configs import dicts_in, skip_init

from mmunimoco.engine.checks.config_fields import check_fields

ROOT = Path(__file__).parents[2]
ALL = sorted(ROOT.glob('configs/**/*.py'))
PATHS = [path for path in ALL if '_base_' not in path.parts]
# Top-level names that are no arguments of Runner.
READ_FROM_CFG = {
    *('custom_imports', 'vis_backends', 'model_wrapper_cfg', 'sync_bn'),
}
HOSTS = dict(mmdetection='mmdet', mmsegmentation='mmseg')
README_BLOCKS = [
    (page.parent, block)
    for page in sorted(ROOT.glob('configs/**/README.md'))
    for block in re.findall(r'```python\n(.*?)```', page.read_text(), re.S)
]


def host_of(path):
    """Return the package whose configs this one inherits."""
    text = f'{path} {path.read_text()}'
    for folder, host in HOSTS.items():
        if f'/{folder}/' in text or f"'{host}::" in text:
            return host
    return 'mmpretrain'


@pytest.mark.parametrize('path', PATHS, ids=[path.stem for path in PATHS])
def test_resolves_and_builds(path):
    host = host_of(path)
    if find_spec(host) is None:
        pytest.skip(f'needs {host}, which is not installed')
    cfg = Config.fromfile(path)
    check_fields(cfg, {})
    assert cfg.default_scope == host
    assert cfg.custom_imports.imports[0] == 'mmunimoco'
    with DefaultScope.overwrite_default_scope(host):
        with skip_init():
            MODELS.build(cfg.model)
        datasets = [d for d in dicts_in(cfg.to_dict()) if d.get('pipeline')]
        assert datasets
        with DATASETS.switch_scope_and_registry(host) as registry:
            kinds = [registry.get(dataset['type']) for dataset in datasets]
        assert all(kinds)
        for dataset in datasets:
            for step in dataset['pipeline']:
                TRANSFORMS.build(step)
    if host == 'mmpretrain':
        # Inheriting mmpretrain's files leaves it where a function is called.
        assert '_scope_' not in str(cfg)
        # A forgotten `label_ratio = 0.1` would train with all labels.
        known = {*inspect.signature(Runner.__init__).parameters}
        assert set(cfg) <= known | READ_FROM_CFG


@pytest.mark.parametrize(('folder', 'block'), README_BLOCKS)
def test_example_of_a_readme_resolves(folder, block, tmp_path):
    text, count = re.subn(r"'([^']+\.py)'", rf"'{folder}/\1'", block)
    assert count
    (tmp_path / 'config.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'config.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'), skip_init():
        MODELS.build(cfg.model)


def test_imports_do_not_select_the_other_config_syntax(monkeypatch):
    # As in most environments with mmengine 0.10.7.
    monkeypatch.setattr(
        'mmengine.config.config._is_builtin_module', lambda name: False
    )
    importing = [
        path
        for path in ALL
        if re.search(r'^(import|from) ', path.read_text(), re.MULTILINE)
    ]
    assert importing
    assert not [
        path for path in importing if Config._is_lazy_import(str(path))
    ]
