"""What a result was measured on and with."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mmunimoco.utils.versions import collect_versions, describe_machine


def describe_versions() -> dict[str, Any]:
    """Versions of the packages, of CUDA, and whether mmcv has its ops."""
    return collect_versions() | dict(
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        mmcv_has_ops=find_spec('mmcv._ext') is not None,
    )


def describe_hardware(device: str) -> dict[str, Any]:
    """Describe the processor and, if it is used, the GPU with its driver."""
    machine = describe_machine()
    if device != 'cuda':
        return machine | dict(gpu=None, driver=None)
    properties = torch.cuda.get_device_properties(0)
    return machine | dict(
        gpu=properties.name,
        gpus=torch.cuda.device_count(),
        gpu_memory_gib=round(properties.total_memory / 2**30, 1),
        compute_capability=f'{properties.major}.{properties.minor}',
        driver=_first_line(
            'nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'
        ),
    )


def describe_commit(root: Path) -> dict[str, Any]:
    """Find the commit that is checked out.

    Args:
        root (Path): The checkout, which may be a bare copy without history.

    Returns:
        dict: ``commit``, None if unknown, and ``changed``: whether tracked
        files differ from it.
    """
    # The copy may belong to somebody else.
    git = ('git', '-c', 'safe.directory=*', '-C', str(root))
    commit = _first_line(*git, 'rev-parse', 'HEAD')
    if commit is None:
        return dict(commit=None, changed=None)
    status = _first_line(*git, 'status', '--porcelain', '-uno')
    return dict(commit=commit, changed=bool(status))


def _first_line(*command: str) -> str | None:
    """First line of a command's output, None if it fails or is missing."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None
    return (done.stdout.splitlines() or [''])[0].strip()
