"""One process of a real job dies: the job ends, and says why."""

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
    """Two processes, of which the second has a fault in mid-training.

    Returns:
        tuple[int, str, float]: Exit status of the job, its output, and for
        how many seconds it went on after the fault.
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
    print(job.stdout)  # for a test that fails
    after = time.time() - float((folder / 'fault').read_text())
    return job.returncode, job.stdout, after


def still_running(folder: Path) -> list[str]:
    """Processes of the job; workers look every 5 s for who made them."""
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('raise', 'ArithmeticError: a fault of one rank'),
        ('kill_worker', 'is killed by signal: Killed'),
    ],
)
def test_job_ends_with_the_traceback_of_who_died(tmp_path, kind, message):
    code, output, after = launch(tmp_path, kind)
    assert code != 0
    # The promise, with which a job that hangs would not end at all.
    assert after < 60
    assert still_running(tmp_path) == []
    # Of two that end within a second torchrun may name the other one first.
    failures = output.split('Failures:')[1].split('traceback : ')
    told = [
        text
        for rank, text in zip(failures, failures[1:], strict=False)
        if 'rank      : 1 ' in rank.rpartition('exitcode')[0]
    ]
    assert len(told) == 1 and message in told[0]
    assert (tmp_path / 'work/last_checkpoint').read_text().endswith('_2.pth')


@pytest.mark.slow
def test_job_starts_again_after_a_rank_was_killed(tmp_path):
    """The others must have ended for that; it goes on where it was saved."""
    code, output, _ = launch(tmp_path, 'kill', MAX_RESTARTS='1')
    assert code == 0
    assert 'exitcode: -9' in output
    assert 'rank 0 cannot go on without another process' in output
    assert 'resumed epoch: 0, iter: 2' in output
    assert still_running(tmp_path) == []
    last = read_checkpoint(str(tmp_path / f'work/iter_{STEPS}.pth'))
    assert last['meta']['iter'] == STEPS
