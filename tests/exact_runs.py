"""Train a narrow demo config in a process that may be killed."""

import errno
import os
import runpy
import signal
import socket
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from ddp_helpers import PRELOAD

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / 'tools/train.py'
KILL, TERM, FULL_DISK = signal.SIGKILL, signal.SIGTERM, 0
CONFIG = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=64, hid_channels=16),
    head=dict(queue_len=64))
train_dataloader = dict(
    batch_size=20,
    num_workers={workers},
    persistent_workers={persistent},
    dataset=dict(dataset=dict(dataset=dict(indices=100))))
train_cfg = dict(type='ExactEpochLoop', max_epochs=2, val_interval=1)
small = dict(dataset=dict(indices=50))
val_cfg = dict(bank_dataloader=small)
test_cfg = dict(bank_dataloader=small)
val_dataloader = small
test_dataloader = small
default_hooks = dict(
    logger=dict(interval=2),
    checkpoint=dict(max_keep_ckpts=2, save_best='knn/top1', {checkpoint}))
randomness = dict(seed=0, deterministic=True)
"""


def write_config(
    folder: Path,
    workers: int,
    checkpoint: str,
    changes: str = '',
    name: str = 'tiny',
) -> Path:
    """Write a config: two epochs of 7 steps, 10 % labels, kNN.

    Args:
        folder (Path): Folder of the file.
        workers (int): Workers of the data loader; 4 are persistent.
        checkpoint (str): Options of the checkpoint hook.
        changes (str): Lines of a config that inherits this one.
        name (str): Start of the file's name.

    Returns:
        Path: The file.
    """
    path = folder / f'{name}_{workers}.py'
    base = ROOT / 'configs/demo/unimoco_resnet18_fmnist-10pct.py'
    path.write_text(
        CONFIG.format(
            base=str(base),
            workers=workers,
            persistent=workers == 4,
            checkpoint=checkpoint,
        )
    )
    if not changes:
        return path
    changed = path.with_stem(f'{path.stem}_changed')
    changed.write_text(f'_base_ = [{path.name!r}]\n{changes}\n')
    return changed


def start(
    tool: Path, *arguments: Any, kill: tuple | None = None, env=None
) -> Any:
    """Start a tool in its own process.

    Args:
        tool (Path): A script such as ``tools/train.py``.
        *arguments: Its command line.
        kill (tuple, optional): A point (see ``_kill_at``), how many times it
            is passed before, and the signal to raise there, or FULL_DISK.
        env (dict, optional): More environment variables.

    Returns:
        Process: The running process.
    """
    context = get_context('forkserver')
    context.set_forkserver_preload(PRELOAD)
    command = [str(part) for part in (tool, *arguments)]
    process = context.Process(target=_run, args=(command, kill, env or {}))
    process.start()
    return process


def run(tool: Path, *arguments: Any, timeout: float = 300, **options) -> int:
    """Run a tool to its end; the exit status, -N for signal N."""
    process = start(tool, *arguments, **options)
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f'{tool} {arguments} did not end')
    return process.exitcode


def run_processes(
    count: int, tool: Path, *arguments: Any, **options: Any
) -> list[int]:
    """Run several processes of a job as torchrun does; exit statuses."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = str(sock.getsockname()[1])
    shared = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    processes = [
        start(
            *(tool, *arguments, '--launcher', 'pytorch'),
            **options,
            env=shared
            | dict(
                WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank)
            ),
        )
        for rank in range(count)
    ]
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def newest_log(work_dir: Path) -> str:
    """Return the text of the last log of a run."""
    return max(work_dir.glob('*/*.log')).read_text()


def _run(command: list[str], kill: tuple | None, env: dict) -> None:
    os.environ.update(env)
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    sys.argv = command
    import mmengine.runner.runner

    mmengine.runner.runner.collect_env = dict  # takes seconds
    if kill is not None:
        _kill_at(*kill)
    runpy.run_path(command[0], run_name='__main__')


def _kill_at(point: str, passes: int, number: int) -> None:
    """Kill this process at a point that it has passed so many times.

    The points are functions; the signal comes before they do anything.
    """
    import mmunimoco.utils.atomic as atomic
    from mmunimoco.engine.exact.loops import ExactLoop
    from mmunimoco.engine.knn_loop import KNNValLoop

    owner, name = {
        'step': (ExactLoop, 'run_iter'),
        'validation': (KNNValLoop, '_extract_queries'),
        # A complete file that has not got its name yet.
        'rename': (atomic.os, 'replace'),
    }[point]
    function = getattr(owner, name)

    def killed(*args: Any, **options: Any) -> Any:
        nonlocal passes
        passes -= 1
        if passes == -1 and number == FULL_DISK:
            raise OSError(errno.ENOSPC, 'No space left on device')
        if passes == -1:
            os.kill(os.getpid(), number)
        return function(*args, **options)

    setattr(owner, name, killed)
