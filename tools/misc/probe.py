"""Answer a question of tools/install.sh about an environment.

usage: probe.py QUESTION [ARGUMENTS]

Run by the environment's Python; the exit status is 0 for yes. Looks for files
instead of importing packages where possible: importing takes seconds.
"""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path


def modules(*names: str) -> bool:
    """Can all of these modules be found?"""
    return all(find_spec(name) is not None for name in names)


def release(distribution: str) -> str | None:
    """Return the installed release of a distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def mmcv(distribution: str, pin: str, ops: str) -> bool:
    """Is mmcv installed in the pinned release, with compiled ops if asked?

    Args:
        distribution: Name of the distribution that provides mmcv.
        pin: The release; any if empty.
        ops: 'ops' if the compiled ops are needed, else 'any'.
    """
    spec = find_spec('mmcv')
    if spec is None or release(distribution) is None:
        return False
    compiled = list(Path(spec.origin).parent.glob('_ext.*'))
    return pin in ('', release(distribution)) and (ops == 'any' or compiled)


def other_packages(*distributions: str) -> bool:
    """Print which of these distributions are installed."""
    found = [name for name in distributions if release(name)]
    print(*found)
    return bool(found)


def supported_torch() -> bool:
    """Can torch >= 2.1 and torchvision be imported?"""
    import torch
    import torchvision  # noqa: F401

    major, minor = torch.__version__.split('.')[:2]
    return (int(major), int(minor)) >= (2, 1)


def cuda_toolkit() -> bool:
    """Does the CUDA toolkit match torch, or is there no GPU to compile for?"""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if not torch.cuda.is_available():
        return True
    if CUDA_HOME is None:
        return False
    text = subprocess.check_output([f'{CUDA_HOME}/bin/nvcc', '-V'], text=True)
    major = re.search(r'release (\d+)', text)[1]
    return major == torch.version.cuda.split('.')[0]


def python_headers() -> bool:
    """Is Python.h installed?"""
    return Path(sysconfig.get_paths()['include'], 'Python.h').is_file()


if __name__ == '__main__':
    question, *arguments = sys.argv[1:]
    sys.exit(not globals()[question](*arguments))
