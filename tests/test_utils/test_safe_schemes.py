"""Whatever mmengine loads checkpoints from, nothing in them is executed."""

import io
import os

import pytest
import torch
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

import mmunimoco  # noqa: F401


class _RunsCode:
    def __init__(self, function, *args):
        self.made_by = function, args

    def __reduce__(self):
        return self.made_by


@pytest.fixture
def mark(tmp_path):
    """A file that appears if the checkpoint executes what it holds."""
    return tmp_path / 'mark'


@pytest.fixture
def bad(tmp_path, mark):
    path = tmp_path / 'bad.pth'
    code = _RunsCode(os.system, f'touch {mark}')
    torch.save({'state_dict': {}, 'meta': code}, path)
    return path


def test_every_scheme_is_covered():
    assert {'', 'https://', 'torchvision://'} <= set(CheckpointLoader._schemes)
    for loader in CheckpointLoader._schemes.values():
        assert loader.reads_safely


def test_local_files(bad, mark):
    with pytest.raises(ValueError, match='can execute any code'):
        load_checkpoint(torch.nn.Linear(1, 1), str(bad))
    assert not mark.exists()


@pytest.mark.parametrize(
    'source',
    [
        'https://example.org/bad.pth',
        'torchvision://resnet18',
        'mmcls://resnet18',
        'open-mmlab://some',
    ],
)
def test_urls_and_model_zoos(source, bad, mark, monkeypatch):
    """As far as the file in the cache, which is what was downloaded."""
    url = 'https://example.org/bad.pth'
    for name in ('torchvision_models', 'mmcls_models', 'external_models'):
        monkeypatch.setattr(
            mmengine_checkpoint,
            f'get_{name}',
            lambda: dict.fromkeys(('resnet18', 'some'), url),
        )
    monkeypatch.setenv('TORCH_HOME', str(bad.parent))
    cached = bad.parent / 'hub/checkpoints/bad.pth'
    for folder in (cached.parent, bad.parent / 'checkpoints'):
        folder.mkdir(parents=True)
        (folder / 'bad.pth').write_bytes(bad.read_bytes())
    monkeypatch.setattr(torch.hub, '_hub_dir', str(bad.parent / 'hub'))
    with pytest.raises(ValueError, match='can execute any code'):
        CheckpointLoader.load_checkpoint(source, map_location='cpu')
    assert not mark.exists()


def test_getattr_that_mmengine_allows(tmp_path):
    """Mmengine has ``getattr`` on its list while it loads."""
    path = tmp_path / 'bad.pth'
    torch.save([_RunsCode(getattr, torch.nn.Module, '__init__')], path)
    with pytest.raises(ValueError, match='can execute any code'):
        CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


def test_streams_of_object_stores(bad, mark):
    def from_store(filename, map_location=None):
        with io.BytesIO(bad.read_bytes()) as buffer:
            return torch.load(
                buffer, map_location=map_location, weights_only=False
            )

    from mmunimoco.utils.safe_schemes import _reading_safely

    with pytest.raises(ValueError, match='can execute any code'):
        _reading_safely(from_store)('s3://bucket/bad.pth')
    assert not mark.exists()
    assert torch.load.__module__.startswith('torch')
