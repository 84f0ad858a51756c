"""Checkpoint files are read without executing what they contain."""

import argparse
import io
import os
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch
from foreign_checkpoints import RunsCode
from mmengine.logging import HistoryBuffer
from torch import serialization

from mmunimoco.utils.safe_load import read_checkpoint, safe_torch_load


@pytest.mark.parametrize('as_zip', [True, False])
def test_reads_what_mmengine_saves(tmp_path, as_zip):
    path = tmp_path / 'epoch_1.pth'
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save(
        dict(
            meta=dict(
                epoch=1, seed=np.int64(3), state=np.arange(3, dtype='uint32')
            ),
            state_dict={'backbone.weight': torch.arange(3.0).half()},
            message_hub=dict(log_scalars=dict(loss=history)),
            param_schedulers=[dict(last_step=1, milestones=Counter([8, 11]))],
        ),
        path,
        # False: as before torch 1.6, and so in many published .pth.tar files.
        _use_new_zipfile_serialization=as_zip,
    )
    checkpoint = read_checkpoint(path)
    assert checkpoint['meta']['seed'] == 3
    assert checkpoint['meta']['state'].tolist() == [0, 1, 2]
    weight = checkpoint['state_dict']['backbone.weight']
    assert weight.dtype == torch.half
    assert weight.tolist() == [0.0, 1.0, 2.0]
    assert checkpoint['message_hub']['log_scalars']['loss'].mean() == 2.0
    assert checkpoint['param_schedulers'][0]['milestones'] == {8: 1, 11: 1}


@pytest.mark.parametrize(
    'make',
    [
        lambda mark: RunsCode(os.system, f'touch {mark}'),
        lambda mark: RunsCode(eval, f'open({str(mark)!r}, "w")'),
        lambda mark: RunsCode(getattr, torch.nn.Module, '__init__'),
        lambda mark: RunsCode(getattr, HistoryBuffer, '__init__'),
        lambda mark: RunsCode(torch.storage._load_from_bytes, b''),
    ],
    ids=['system', 'eval', 'getattr', 'getattr of history', 'nested load'],
)
@pytest.mark.parametrize('as_zip', [True, False])
def test_executes_nothing(tmp_path, mark, make, as_zip):
    path = tmp_path / 'hostile.pth'
    torch.save(
        {'state_dict': {}, 'meta': make(mark)},
        path,
        _use_new_zipfile_serialization=as_zip,
    )
    with pytest.raises(ValueError, match='can execute any code'):
        read_checkpoint(path)
    assert not mark.exists()


def test_type_that_the_user_allows(tmp_path):
    path = tmp_path / 'foreign.pth'
    torch.save({'args': argparse.Namespace(arch='resnet50')}, path)
    with pytest.raises(ValueError, match=r'type argparse\.Namespace'):
        read_checkpoint(path)
    if not hasattr(serialization, 'add_safe_globals'):
        pytest.skip('torch before 2.4 has no add_safe_globals')
    before = serialization.get_safe_globals()
    serialization.add_safe_globals([argparse.Namespace])
    try:
        assert read_checkpoint(path)['args'].arch == 'resnet50'
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def test_archives_that_bypass_the_unpickler(tmp_path):
    script = tmp_path / 'script.pth'
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), script)
    with pytest.raises(ValueError, match=r'torch\.jit\.ScriptModule'):
        read_checkpoint(script)
    tar = tmp_path / 'tar.pth'
    with tarfile.open(tar, 'w') as file:
        file.add(__file__, 'storages')
    with pytest.raises(ValueError, match='it is a tar archive'):
        read_checkpoint(tar)
    # zipfile finds an archive at the end of a file, torch at its start.
    both = io.BytesIO(tar.read_bytes() + script.read_bytes())
    with pytest.raises(ValueError, match='it is a tar archive'):
        safe_torch_load(both)


@pytest.mark.parametrize('content', [b'', b'abc', b'PK\x03\x04', None])
def test_damaged_file(tmp_path, content):
    path = tmp_path / 'damaged.pth'
    if content is None:
        torch.save({'state_dict': {'a': torch.zeros(1000)}}, path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'damaged\.pth is damaged'):
        read_checkpoint(path)


def test_changed_byte(tmp_path):
    path = tmp_path / 'changed.pth'
    torch.save({'a': torch.full((1000,), 1.5)}, path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b'\x00\x00\xc0?') + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match='checksum of .* does not match'):
        read_checkpoint(path)


def test_not_a_dict(tmp_path):
    torch.save([1], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='contains a list'):
        read_checkpoint(tmp_path / 'list.pth')


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth does not exist'):
        read_checkpoint(tmp_path / 'gone.pth')
