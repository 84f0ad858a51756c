"""What a result was made with: versions, machine and commit."""

import os
import platform
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.utils.dl_utils import collect_env

from mmunimoco.compatibility import find_version

PACKAGES = (
    'mmunimoco',
    'torch',
    'torchvision',
    'mmengine',
    'mmcv',
    'mmpretrain',
    'numpy',
    'sklearn',
)


def collect_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter.

    Returns:
        dict[str, str]: Import name -> version, or 'absent' for a package that
        is not installed.
    """
    versions = dict(python=platform.python_version())
    for name in PACKAGES:
        versions[name] = str(find_version(name) or 'absent')
    return versions


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_environment() -> dict[str, Any]:
    """Describe what a stored measurement depends on, without any path.

    Returns:
        dict: ``versions`` (packages, CUDA, cuDNN, compiler, whether mmcv has
        its compiled ops), ``machine`` (processor, cores, system and, where
        there are any, the GPUs) and ``git`` (``commit`` and whether tracked
        files differ from it; None if unknown).
    """
    env = collect_env()
    machine = dict(
        processor=_processor_name(),
        cores=count_cores(),
        system=f'{platform.system()} {platform.machine()}',
    )
    machine |= {k: str(v) for k, v in env.items() if k.startswith('GPU ')}
    versions = collect_versions() | dict(
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        compiler=env.get('GCC'),
        mmcv_has_ops=find_spec('mmcv._ext') is not None,
    )
    return dict(versions=versions, machine=machine, git=_commit())


def _processor_name() -> str:
    info = Path('/proc/cpuinfo')
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> dict[str, str | bool | None]:
    """Return the commit of the checkout that this package is imported from."""
    root = Path(__file__).resolve().parents[2]
    # The checkout may belong to another user.
    git = ('git', '-c', 'safe.directory=*', '-C', str(root))
    commands = (('rev-parse', 'HEAD'), ('status', '--porcelain', '-uno'))
    try:
        commit, status = (
            subprocess.run(
                git + command, capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return dict(commit=None, changed=None)
    return dict(commit=commit, changed=bool(status))
