"""One run at a time in a work folder."""

import subprocess
import sys

import pytest
from noise_runs import noise_runner

from mmunimoco.engine.checks.work_folder import lock_folder

HOLD = """
import sys
from pathlib import Path
from mmunimoco.engine.checks.work_folder import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print('locked', flush=True)
sys.stdin.read()
"""
PREFLIGHT = [dict(type='PreflightHook')]


def test_a_folder_belongs_to_a_run_until_it_dies(tmp_path):
    command = [sys.executable, '-c', HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        lines = iter(other.stdout.readline, 'locked\n')
        assert all('OneDL' in line for line in lines)
        message = rf'Process {other.pid} on .* is training in {tmp_path}'
        with pytest.raises(RuntimeError, match=message):
            noise_runner(tmp_path, hooks=PREFLIGHT).train()
        assert not list(tmp_path.glob('*.pth'))
        other.kill()
    lock_folder(tmp_path).close()


def test_a_new_run_does_not_start_among_the_checkpoints_of_another(tmp_path):
    noise_runner(tmp_path, hooks=PREFLIGHT).train()
    before = (tmp_path / 'epoch_1.pth').stat().st_mtime_ns
    runner = noise_runner(tmp_path, hooks=PREFLIGHT, epochs=2)
    with pytest.raises(FileExistsError, match='such as epoch_1.pth.*--resume'):
        runner.train()
    assert (tmp_path / 'epoch_1.pth').stat().st_mtime_ns == before
    assert not (tmp_path / 'epoch_2.pth').exists()
