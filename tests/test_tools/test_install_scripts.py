"""tools/misc/progress.py and probe.py, which tools/install.sh calls."""

import importlib.util
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

FOLDER = Path(__file__).parents[2] / 'tools/misc'


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def progress():
    return load('progress').Progress('mmcv', start=0.0)


@pytest.mark.parametrize(
    ('line', 'now', 'text'),
    [
        ('', 65.0, 'mmcv: 1:05'),
        (
            '  Downloading https://host/a/torch-2.whl (900 MB)',
            66.0,
            'mmcv: 1:06, downloading torch-2.whl',
        ),
        ('Installing collected packages', 70.0, 'mmcv: 1:10, installing'),
        ('  [1/79] c++ -c a.cpp', 80.0, 'mmcv: 1:20, 1 of 79 files compiled'),
        # 40 files in 400 s, so 38 more take 380 s.
        (
            '  [41/79] c++ -c b.cpp',
            480.0,
            'mmcv: 8:00, 41 of 79 files compiled, about 6:20 left',
        ),
    ],
)
def test_progress_line(progress, line, now, text):
    progress.read(line, now)
    assert progress.describe(now) == text


def test_progress_ends_when_it_cannot_go_on(tmp_path):
    """A full disk, and output of a compiler in another encoding."""
    for log, status in (('/dev/full', 1), (tmp_path / 'log', 0)):
        done = subprocess.run(
            [sys.executable, FOLDER / 'progress.py', 'A step', log],
            input=b'caf\xe9\n' * 3,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == status
    assert (tmp_path / 'log').read_text().count('caf') == 3


def test_progress_logs_all_output(tmp_path):
    log = tmp_path / 'log'
    log.write_text('before\n')
    done = subprocess.run(
        [sys.executable, FOLDER / 'progress.py', 'A step', log],
        input='one\ntwo\n',
        capture_output=True,
        text=True,
        check=True,
    )
    assert log.read_text() == 'before\none\ntwo\n'
    assert done.stdout.splitlines()[-1].startswith('A step: 0:0')


def test_progress_tells_of_ctrl_c(tmp_path, monkeypatch):
    def lines():
        yield 'one\n'
        raise KeyboardInterrupt

    stdin = MagicMock(__iter__=lambda self: lines())
    monkeypatch.setattr(sys, 'stdin', stdin)
    assert load('progress').main('A step', str(tmp_path / 'log')) == 130
    assert (tmp_path / 'log').read_text() == 'one\n'


def test_probe_answers(capsys):
    probe = load('probe')
    assert probe.modules('torch', 'mmengine')
    assert not probe.modules('torch', 'no_such_module')
    assert probe.supported_torch()
    header = Path(sysconfig.get_paths()['include'], 'Python.h')
    assert probe.python_headers() == header.is_file()
    assert probe.other_packages('no-such-package', 'torch')
    assert capsys.readouterr().out == 'torch\n'


@pytest.mark.parametrize(
    ('release', 'supported'),
    [('1.13.1', False), ('2.0.1', False), ('2.1.0', True), ('2.11.0', True)],
)
def test_probe_compares_releases_by_number(monkeypatch, release, supported):
    monkeypatch.setattr(torch, '__version__', f'{release}+cu121')
    assert load('probe').supported_torch() == supported


@pytest.mark.parametrize(
    ('has_gpu', 'home', 'toolkit', 'fits'),
    [
        (False, None, '', True),
        (True, None, '', False),
        (True, '/cuda', 'release 12.8, V12.8', True),
        (True, '/cuda', 'release 11.8, V11.8', False),
    ],
)
def test_probe_compares_cuda(monkeypatch, has_gpu, home, toolkit, fits):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    monkeypatch.setattr(torch.version, 'cuda', '12.1')
    monkeypatch.setattr('torch.utils.cpp_extension.CUDA_HOME', home)
    probe = load('probe')
    monkeypatch.setattr(
        probe.subprocess, 'check_output', lambda *_, **__: toolkit
    )
    assert probe.cuda_toolkit() == fits


def test_probe_finds_mmcv_by_release_and_ops(tmp_path, monkeypatch):
    probe = load('probe')
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    monkeypatch.delitem(sys.modules, 'mmcv', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    # Any installed distribution can stand in for mmcv's.
    release = version('pytest')
    assert probe.mmcv('pytest', release, 'any')
    assert probe.mmcv('pytest', '', 'any')
    assert not probe.mmcv('pytest', '0.1', 'any')
    assert not probe.mmcv('no-such-package', '', 'any')
    assert not probe.mmcv('pytest', release, 'ops')
    (package / '_ext.cpython.so').touch()
    assert probe.mmcv('pytest', release, 'ops')
