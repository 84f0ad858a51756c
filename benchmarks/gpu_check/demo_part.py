"""The part that trains the demo's config for an epoch, as users launch it."""

import json
import math
import os
import socket
import stat
import sys
from importlib.util import find_spec
from pathlib import Path

from .part import Outcome

CONFIG = 'configs/demo/unimoco_resnet18_fmnist.py'
OPTIONS = ('train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
CHANCE = 10.0  # percent: ten balanced classes


def mmpretrain_launcher() -> Path:
    """Find mmpretrain's own ``dist_train.sh``, as it is installed.

    Raises:
        FileNotFoundError: If mmpretrain was installed without its tools.
    """
    package = Path(find_spec('mmpretrain').origin).parent
    path = package / '.mim' / 'tools' / 'dist_train.sh'
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} does not exist: this mmpretrain was installed without '
            'its tools; install it from a wheel or with mim'
        )
    return path


def demo_command(
    launcher: Path, root: Path, folder: Path, amp: bool = False
) -> list[str]:
    """Return the command that trains the demo's config for one epoch.

    Args:
        launcher (Path): A ``dist_train.sh``.
        root (Path): The checkout.
        folder (Path): Where logs and the checkpoint go.
        amp (bool): Whether to train in mixed precision.
    """
    return [
        *('bash', str(launcher), str(root / CONFIG), '1'),
        *('--work-dir', str(folder / 'run')),
        *(['--amp'] if amp else []),
        *('--cfg-options', *OPTIONS),
    ]


def launcher_env(folder: Path) -> dict[str, str]:
    """Environment in which a ``dist_train.sh`` finds this Python.

    The scripts call ``python``. A link would lose the virtual environment,
    so that name becomes a script of one line.

    Args:
        folder (Path): Where the script goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / 'python'
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    path = f'{folder.resolve()}{os.pathsep}{os.environ.get("PATH", "")}'
    return dict(PATH=path, PORT=str(port))


def read_demo(folder: Path) -> Outcome:
    """Read what an epoch of training left behind.

    Args:
        folder (Path): Folder of :func:`demo_command`.

    Returns:
        Outcome: ``results`` has first and last loss, kNN accuracy in
        percent, median milliseconds a step and of them waiting for data.
    """
    run = folder / 'run'
    logs = sorted(run.glob('*/vis_data/scalars.json'))
    if not logs:
        return Outcome(faults=['no log of the training was written'])
    lines = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    steps = [line for line in lines if 'loss' in line]
    knn = [line['knn/top1'] for line in lines if 'knn/top1' in line]
    faults = []
    if not steps:
        faults.append('no loss was logged')
    elif not all(math.isfinite(line['loss']) for line in steps):
        faults.append('a loss is not finite')
    if not knn:
        faults.append('no kNN accuracy was logged')
    elif not knn[-1] > 2 * CHANCE:
        faults.append(f'kNN accuracy {knn[-1]:.1f} % is near chance')
    if not (run / 'epoch_1.pth').is_file():
        faults.append('no checkpoint was written')
    if faults:
        return Outcome(dict(log=lines), faults)
    last = steps[-1]
    results = dict(
        loss_first=steps[0]['loss'],
        loss_last=last['loss'],
        knn_top1=knn[-1],
        milliseconds_per_step=1000 * last['time'],
        milliseconds_for_data=1000 * last['data_time'],
        memory_mib=last.get('memory'),
    )
    summary = f'loss {last["loss"]:.3f}, kNN {knn[-1]:.1f} % after one epoch'
    return Outcome(results, [], summary)
