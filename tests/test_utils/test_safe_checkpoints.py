"""mmengine's checkpoint loaders, once ``safe_checkpoints`` is imported."""

import importlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmunimoco.utils import safe_load


@pytest.fixture(autouse=True)
def safe_checkpoints():
    """The module, imported for the duration of one test."""
    before = CheckpointLoader._schemes
    module = importlib.import_module('mmunimoco.safe_checkpoints')
    yield importlib.reload(module)
    CheckpointLoader._schemes = before


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder that torch.hub downloads to."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    folder = tmp_path / 'hub/checkpoints'
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def zoo(monkeypatch):
    """Model zoos in which every model has one URL."""
    urls = dict.fromkeys(('resnet18', 'some'), 'https://example.org/a.pth')
    for name in ('torchvision_models', 'mmcls_models', 'external_models'):
        monkeypatch.setattr(mmengine_checkpoint, f'get_{name}', lambda: urls)


def load(source):
    return CheckpointLoader.load_checkpoint(source, map_location='cpu')


def test_replaces_every_loader(safe_checkpoints):
    for prefix, loader in CheckpointLoader._schemes.items():
        assert loader.__module__ == safe_checkpoints.__name__, prefix


def test_local_file(tmp_path, hostile, mark):
    with pytest.raises(ValueError, match='can execute any code'):
        load_checkpoint(torch.nn.Linear(1, 1), str(hostile))
    assert not mark.exists()
    with pytest.raises(FileNotFoundError, match=r'gone\.pth does not exist'):
        load(str(tmp_path / 'gone.pth'))
    with pytest.raises(IsADirectoryError, match='is a folder: give a file'):
        load(str(tmp_path))
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / 'good.pth')
    assert set(load(str(tmp_path / 'good.pth'))) == {'weight', 'bias'}


@pytest.mark.usefixtures('zoo')
@pytest.mark.parametrize(
    'source',
    [
        'https://example.org/a.pth',
        'torchvision://resnet18',
        'mmcls://resnet18',
        'open-mmlab://some',
    ],
)
def test_urls_and_model_zoos(source, hostile, mark, hub):
    """A file in the cache stands for one that was downloaded."""
    (hub / 'a.pth').write_bytes(hostile.read_bytes())
    with pytest.raises(ValueError, match='can execute any code'):
        load(source)
    assert not mark.exists()
    torch.save({'state_dict': {'backbone.a': torch.ones(1)}}, hub / 'a.pth')
    assert len(load(source)['state_dict']) == 1


@pytest.mark.usefixtures('zoo')
@pytest.mark.parametrize(
    'scheme', ['torchvision', 'modelzoo', 'mmcls', 'open-mmlab', 'openmmlab']
)
def test_unknown_model_of_a_zoo(scheme):
    with pytest.raises(ValueError, match=f'^{scheme}://resnet19: .*resnet18'):
        load(f'{scheme}://resnet19')


def test_file_in_the_home_of_mmengine(tmp_path, hostile, monkeypatch):
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    monkeypatch.setattr(
        mmengine_checkpoint,
        'get_external_models',
        lambda: dict(own=hostile.name),
    )
    with pytest.raises(ValueError, match='can execute any code'):
        load('open-mmlab://own')


def test_download(hub, monkeypatch):
    """It is stored where torch.hub does, once; a failure names the URL."""

    def download(url, path, progress):
        if 'gone' in url:
            raise HTTPError(url, 404, 'Not Found', None, None)
        downloaded.append(url)
        torch.save({'state_dict': {}}, path)

    downloaded = []
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    url = 'https://example.org/b.pth?version=2'
    assert load(url) == load(url) == {'state_dict': {}}
    assert downloaded == [url]
    assert (hub / 'b.pth').is_file()
    url = 'https://example.org/gone.pth'
    message = re.escape(f'cannot download {url} to {hub}/gone.pth: HTTP Error')
    with pytest.raises(OSError, match=message) as raised:
        load(url)
    assert isinstance(raised.value.__cause__, HTTPError)


@pytest.mark.parametrize('scheme', ['s3', 'petrel', 'some:s3'])
def test_object_store(scheme, hostile, mark, monkeypatch, safe_checkpoints):
    class Backend:
        def get(self, filename):
            return hostile.read_bytes()

    monkeypatch.setattr(
        safe_checkpoints, 'get_file_backend', lambda *_, **__: Backend()
    )
    with pytest.raises(ValueError, match='can execute any code'):
        load(f'{scheme}://bucket/a.pth')
    assert not mark.exists()


def test_scheme_that_is_refused():
    with pytest.raises(ValueError, match='does not read pavi://'):
        load('pavi://model')


def test_two_threads_at_once(tmp_path, hostile, mark, monkeypatch):
    """Neither affects the other, and both leave torch as it was."""
    good = {'history': HistoryBuffer([2.0], [1])}
    torch.save(good, tmp_path / 'good.pth')
    both_inside = threading.Barrier(2, timeout=60)
    refuse_archives = safe_load._refuse_archives

    def wait_inside(stream):
        both_inside.wait()
        refuse_archives(stream)

    monkeypatch.setattr(safe_load, '_refuse_archives', wait_inside)
    allowed = getattr(torch.serialization, 'get_safe_globals', list)
    before = torch.load, allowed()
    with ThreadPoolExecutor(2) as pool:
        paths = (str(tmp_path / 'good.pth'), str(hostile))
        reads = [pool.submit(load, path) for path in paths]
    assert reads[0].result()['history'].mean() == 2.0
    with pytest.raises(ValueError, match='can execute any code'):
        reads[1].result()
    assert not mark.exists()
    assert (torch.load, allowed()) == before
