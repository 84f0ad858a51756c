"""One process of a real job dies: the job ends, and names the cause."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exact_runs import ROOT, write_config
from run_faults import parent_of

from mmunimoco.utils.safe_load import read_checkpoint

pytestmark = pytest.mark.slow

CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(
    imports=['mmunimoco', 'run_faults'], allow_failed_imports=False)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='RankFault', folder={folder!r}, kind={kind!r})]
"""
STEPS = 6  # 140 images an epoch, 2 x 20 a step


def launch(folder: Path, kind: str, **environment) -> tuple[int, str, float]:
    """Run two processes, of which the second has a fault.

    Returns:
        tuple[int, str, float]: Exit status of the job, its output, and how
        many seconds it took to end after the fault.
    """
    base = write_config(folder, 1, 'by_epoch=False, interval=2')
    config = folder / 'config.py'
    config.write_text(
        CONFIG.format(base=base.name, folder=str(folder), kind=kind)
    )
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = str(sock.getsockname()[1])
    script = ROOT / 'tools/dist_train.sh'
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    job = subprocess.run(
        ['bash', script, config, '2', '--work-dir', folder / 'work'],
        env=os.environ
        | dict(PATH=path, PYTHONPATH=str(ROOT / 'tests'), PORT=port)
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    print(job.stdout)  # shown if the test fails
    after = time.time() - float((folder / 'fault').read_text())
    return job.returncode, job.stdout, after


def still_running(folder: Path) -> list[str]:
    """Processes of the job; workers check every 5 s for their parent."""
    files = list(folder.glob('pids_*'))
    assert len(files) == 2
    pids = [pid for file in files for pid in file.read_text().split()]
    assert len(pids) == 4
    for _ in range(60):
        pids = [pid for pid in pids if parent_of(pid)]
        if not pids:
            break
        time.sleep(0.5)
    return pids


def test_job_ends_with_the_traceback_of_the_rank_that_failed(tmp_path):
    code, output, after = launch(tmp_path, 'worker')
    assert code != 0
    # As documented; a job that hangs would not end at all.
    assert after < 60
    assert still_running(tmp_path) == []
    # Of two that end within a second torchrun may list the other one first.
    failures = output.split('Failures:')[1].split('traceback : ')
    tracebacks = [
        text
        for rank, text in zip(failures, failures[1:], strict=False)
        if 'rank      : 1 ' in rank.rpartition('exitcode')[0]
    ]
    assert len(tracebacks) == 1
    assert 'is killed by signal: Killed' in tracebacks[0]
    assert (tmp_path / 'work/last_checkpoint').read_text().endswith('_2.pth')


def test_job_restarts_after_a_rank_was_killed(tmp_path):
    """The other rank must have ended; the job resumes its checkpoint."""
    code, output, _ = launch(tmp_path, 'rank', MAX_RESTARTS='1')
    assert code == 0
    assert 'exitcode: -9' in output
    assert 'rank 0 lost another process' in output
    assert 'resumed epoch: 0, iter: 2' in output
    assert still_running(tmp_path) == []
    last = read_checkpoint(str(tmp_path / f'work/iter_{STEPS}.pth'))
    assert last['meta']['iter'] == STEPS
