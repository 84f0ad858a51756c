import os
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmunimoco.utils import safe_load
from mmunimoco.utils.allowed_pickle import load_allowed
from mmunimoco.utils.safe_load import read_checkpoint

OLD_TORCH = torch.__version__ < torch.torch_version.TorchVersion('2.6')


@pytest.fixture(params=['by torch', 'by name'], autouse=True)
def _way(request, monkeypatch):
    """Both ways of reading, whichever this release of torch needs."""
    if request.param == 'by name':
        monkeypatch.setattr(
            safe_load,
            '_load',
            lambda file, map_location: load_allowed(
                file, safe_load._safe_globals(), map_location
            ),
        )
    elif OLD_TORCH:
        pytest.skip('before 2.6 torch takes no list of what is allowed')


class _RunsCode:
    def __init__(self, function, *args):
        self.made_by = function, args

    def __reduce__(self):
        return self.made_by


@pytest.mark.parametrize('as_zip', [True, False])
def test_reads_what_mmengine_saves(tmp_path, as_zip):
    path = tmp_path / 'epoch_1.pth'
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save(
        dict(
            meta=dict(cfg='a = 1', epoch=1, seed=np.int64(3)),
            state_dict={'backbone.weight': torch.arange(3.0)},
            message_hub=dict(log_scalars=dict(loss=history)),
            param_schedulers=[dict(last_step=1, milestones=Counter([8, 11]))],
        ),
        path,
        # As before torch 1.6, and so in many a published .pth.tar.
        _use_new_zipfile_serialization=as_zip,
    )
    checkpoint = read_checkpoint(path)
    assert checkpoint['meta'] == dict(cfg='a = 1', epoch=1, seed=3)
    weight = checkpoint['state_dict']['backbone.weight']
    assert weight.tolist() == [0.0, 1.0, 2.0]
    assert checkpoint['message_hub']['log_scalars']['loss'].mean() == 2.0
    assert checkpoint['param_schedulers'][0]['milestones'] == {8: 1, 11: 1}


@pytest.mark.parametrize(
    'make',
    [
        lambda mark: _RunsCode(os.system, f'touch {mark}'),
        lambda mark: _RunsCode(eval, f'open({str(mark)!r}, "w")'),
        lambda mark: _RunsCode(getattr, torch.nn.Module, '__init__'),
        lambda mark: _RunsCode(getattr, HistoryBuffer, '__init__'),
    ],
)
def test_executes_nothing(tmp_path, make):
    path, mark = tmp_path / 'bad.pth', tmp_path / 'mark'
    torch.save({'state_dict': {}, 'meta': make(mark)}, path)
    with pytest.raises(ValueError, match='can execute any code'):
        read_checkpoint(path)
    assert not mark.exists()


def test_archives_that_escape_the_list(tmp_path):
    path = tmp_path / 'bad.pth'
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)
    with pytest.raises(ValueError, match='bad.pth'):
        read_checkpoint(path)
    with tarfile.open(path, 'w') as file:
        file.add(__file__, 'storages')
    with pytest.raises(ValueError, match='bad.pth'):
        read_checkpoint(path)


@pytest.mark.parametrize('content', [b'', b'abc', b'PK\x03\x04', None])
def test_damaged_file(tmp_path, content):
    path = tmp_path / 'damaged.pth'
    if content is None:
        torch.save({'state_dict': {'a': torch.zeros(1000)}}, path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'damaged\.pth is damaged'):
        read_checkpoint(path)


def test_no_dict(tmp_path):
    torch.save([1], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='holds a list'):
        read_checkpoint(tmp_path / 'list.pth')


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth does not exist'):
        read_checkpoint(tmp_path / 'gone.pth')
