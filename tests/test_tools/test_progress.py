"""The line that tells how an installation is getting on."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'tools/misc/progress.py'


@pytest.fixture(scope='module')
def module():
    spec = importlib.util.spec_from_file_location('progress', SCRIPT)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_time_alone_at_first(module):
    progress = module.Progress('mmcv', start=100.0)
    assert progress.describe(165.0) == 'mmcv: 1:05'


def test_what_pip_is_doing(module):
    progress = module.Progress('torch', start=0.0)
    progress.read('  Downloading https://host/a/b/torch-2.whl (900 MB)', 1.0)
    assert progress.describe(9.0) == 'torch: 0:09, downloading torch-2.whl'
    progress.read('Installing collected packages: torch', 60.0)
    assert progress.describe(61.0) == 'torch: 1:01, installing'


def test_files_compiled_and_time_left(module):
    progress = module.Progress('mmcv', start=0.0)
    progress.read('  [1/79] c++ -c a.cpp', 20.0)
    assert progress.describe(21.0) == 'mmcv: 0:21, 1 of 79 files compiled'
    progress.read('  [41/79] c++ -c b.cpp', 420.0)
    # 40 files in 400 s: 38 more take 380 s.
    assert progress.describe(420.0) == (
        'mmcv: 7:00, 41 of 79 files compiled, about 6:20 left'
    )


def test_command_line_keeps_all_output(tmp_path):
    log = tmp_path / 'log'
    log.write_text('before\n')
    done = subprocess.run(
        [sys.executable, SCRIPT, 'A step', log],
        input='one\ntwo\n',
        capture_output=True,
        text=True,
        check=True,
    )
    assert log.read_text() == 'before\none\ntwo\n'
    assert done.stdout.splitlines()[-1].startswith('A step: 0:0')
