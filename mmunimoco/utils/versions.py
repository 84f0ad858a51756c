"""What a result was made with."""

import os
import platform
from importlib import import_module
from pathlib import Path

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
TRANSFER_PACKAGES = ('mmdet', 'mmseg')


def collect_versions(transfer: bool = False) -> dict[str, str]:
    """Versions of Python and of the packages that matter, by import name.

    Args:
        transfer (bool): Those of detection and segmentation as well.
            Defaults to False.

    Returns:
        dict[str, str]: Name -> version; 'absent' where there is no such
        package.
    """
    versions = dict(python=platform.python_version())
    for name in PACKAGES + (TRANSFER_PACKAGES if transfer else ()):
        versions[name] = _version_of(name)
    return versions


def _version_of(name: str) -> str:
    try:
        return str(import_module(name).__version__)
    except ModuleNotFoundError as error:
        if error.name != name:  # It is there, but broken.
            raise
        return 'absent'


def describe_machine() -> dict[str, str | int]:
    """Processor, number of usable cores and system; no host name."""
    if hasattr(os, 'sched_getaffinity'):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return dict(
        processor=_processor_name(),
        cores=cores,
        system=f'{platform.system()} {platform.machine()}',
    )


def _processor_name() -> str:
    info = Path('/proc/cpuinfo')
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()
