"""Processes of a real job die: it restarts or ends, and names the cause."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from exact_runs import ROOT, write_config
from run_faults import parent_of

CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(
    imports=['mmunimoco', 'run_faults'], allow_failed_imports=False)
custom_hooks = [
    *_base_.custom_hooks, dict(type='RankFault', folder={folder!r})]
"""


def launch(folder: Path) -> tuple[int, str, float]:
    """Run two processes that may restart once, the second with faults.

    Returns:
        tuple[int, str, float]: Exit status of the job, its output, and how
        many seconds it took to end after the last fault.
    """
    base = write_config(folder, 1, 'by_epoch=False, interval=2')
    config = folder / 'config.py'
    config.write_text(CONFIG.format(base=base.name, folder=str(folder)))
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = str(sock.getsockname()[1])
    script = ROOT / 'tools/dist_train.sh'
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    modules = f'{ROOT / "tests"}:{os.environ["PYTHONPATH"]}'
    job = subprocess.run(
        ['bash', script, config, '2', '--work-dir', folder / 'work'],
        env=os.environ
        | dict(PATH=path, PYTHONPATH=modules, PORT=port, MAX_RESTARTS='1'),
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
    assert len(files) == 4
    pids = [pid for file in files for pid in file.read_text().split()]
    assert len(pids) == 8
    for _ in range(60):
        pids = [pid for pid in pids if parent_of(pid)]
        if not pids:
            break
        time.sleep(0.5)
    return pids


def test_job_restarts_and_ends_with_the_traceback_of_the_rank(tmp_path):
    """A rank is killed, and after the restart a worker of its loader."""
    code, output, after = launch(tmp_path)
    assert still_running(tmp_path) == []
    # The other rank ended too; the job resumed its checkpoint.
    assert 'exitcode: -9' in output
    assert 'rank 0 lost another process' in output
    assert 'resumed epoch: 0, iter: 2' in output
    last = (tmp_path / 'work/last_checkpoint').read_text()
    assert last.endswith('iter_4.pth')
    assert code != 0
    # As documented; a job that hangs would not end at all.
    assert after < 60
    # Of two that end within a second torchrun may list the other one first.
    failures = output.split('Failures:')[1].split('traceback : ')
    tracebacks = [
        text
        for rank, text in zip(failures, failures[1:], strict=False)
        if 'rank      : 1 ' in rank.rpartition('exitcode')[0]
    ]
    assert len(tracebacks) == 1
    assert 'is killed by signal: Killed' in tracebacks[0]
