"""Which parts the check has on a GPU, and which on a CPU."""

from functools import partial
from pathlib import Path

from .demo_part import (
    demo_command,
    launcher_env,
    mmpretrain_launcher,
    read_demo,
)
from .part import Part
from .pytest_part import pytest_command, read_pytest
from .step_part import read_step, step_command

NAMES = ('tests', 'demo', 'demo-amp', 'step')
TITLES = {
    'tests': 'tests marked gpu',
    'demo': "one epoch of configs/demo by mmpretrain's dist_train.sh",
    'demo-amp': 'the same with --amp',
    'step': 'ResNet-50 training step of the ImageNet config at 224 x 224',
}
# Where tests marked gpu are. Others import what a bare machine may lack, and
# a file that cannot be imported is a failure.
GPU_TESTS = ('tests/test_gpu', 'tests/test_configs/test_train_step.py')
# Seconds; either sum, with what is around it, stays below nine minutes.
CUDA_LIMITS = {'tests': 190, 'demo': 80, 'demo-amp': 80, 'step': 170}
CPU_LIMITS = {'tests': 190, 'demo': 200, 'step': 130}


def plan_parts(
    device: str, root: Path, folder: Path, names: tuple[str, ...] = NAMES
) -> list[Part]:
    """List the parts of the check.

    On a CPU every part that needs a GPU is listed as skipped, followed by
    its CPU half.

    Args:
        device (str): 'cuda' or 'cpu'.
        root (Path): The checkout.
        folder (Path): Where parts may write.
        names (tuple[str]): Which of :data:`NAMES` to run; others are listed
            as skipped.

    Returns:
        list[Part]: In the order in which they run.

    Raises:
        FileNotFoundError: If ``root`` is no checkout of the project, or
            mmpretrain's launcher is needed and missing.
    """
    if not (root / 'tests' / 'test_gpu').is_dir():
        raise FileNotFoundError(
            f'{root} has no tests/test_gpu: run tools/gpu_check.sh of a '
            'checkout of the project'
        )
    parts = []
    for name in NAMES:
        if name not in names:
            parts.append(_skipped(name, 'not among --parts'))
        elif device == 'cuda':
            parts.append(_cuda_part(name, root, folder))
        else:
            parts.append(_skipped(name, 'no CUDA device'))
            parts += _cpu_half(name, root, folder)
    return parts


def _skipped(name: str, reason: str) -> Part:
    return Part(name, TITLES[name], skip_reason=reason)


def _cuda_part(name: str, root: Path, folder: Path) -> Part:
    make = partial(Part, name, TITLES[name], CUDA_LIMITS[name])
    if name == 'tests':
        return make(partial(pytest_command, 'gpu', GPU_TESTS), read_pytest)
    if name == 'step':
        return make(partial(step_command, root, 'cuda'), read_step)
    command = partial(
        demo_command, mmpretrain_launcher(), root, amp=name == 'demo-amp'
    )
    return make(command, read_demo, launcher_env(folder / f'bin-{name}'))


def _cpu_half(name: str, root: Path, folder: Path) -> list[Part]:
    """Return the CPU half of a part; none where a CPU can show nothing."""
    if name not in CPU_LIMITS:
        return []  # AmpOptimWrapper refuses to work on a CPU
    make = partial(Part, f'{name}-cpu', limit=CPU_LIMITS[name])
    if name == 'tests':
        return [
            make(
                title='the same tests on the CPU',
                command=partial(pytest_command, 'not gpu', GPU_TESTS[:1]),
                read=read_pytest,
            )
        ]
    if name == 'step':
        return [
            make(
                title='the same step on the CPU, batch 2, two steps',
                command=partial(step_command, root, 'cpu'),
                read=read_step,
            )
        ]
    # mmengine's launcher, which mmpretrain's script relies on, calls
    # torch.cuda.set_device.
    launcher = root / 'tools' / 'dist_train.sh'
    return [
        make(
            title="the same by this project's dist_train.sh, with gloo",
            command=partial(demo_command, launcher, root),
            read=read_demo,
            env=launcher_env(folder / f'bin-{name}'),
        )
    ]
