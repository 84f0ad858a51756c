"""The part that times a training step of the ImageNet config."""

import json
import sys
from pathlib import Path

from .part import Outcome

CONFIG = 'configs/unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k.py'
RESULT = 'step.json'


def step_command(root: Path, device: str, folder: Path) -> list[str]:
    """Return the command that measures the steps, in a process of its own."""
    return [
        *(sys.executable, '-m', 'benchmarks.gpu_check.training_step'),
        *(str(root / CONFIG), '--device', device),
        *('--out', str(folder / RESULT)),
    ]


def read_step(folder: Path) -> Outcome:
    """Read what :func:`step_command` measured.

    Args:
        folder (Path): Its folder.

    Returns:
        Outcome: ``results`` as written by ``training_step.py``.
    """
    path = folder / RESULT
    if not path.is_file():
        return Outcome(faults=['no step was measured'])
    results = json.loads(path.read_text())
    cases = results['cases']
    faults = [
        f'{_name(case)}: {case["reason"]}'
        for case in cases
        if case['status'] == 'failed'
    ]
    if not any(case['status'] == 'passed' for case in cases):
        faults.append('no case passed')
    return Outcome(results, faults, '\n'.join(map(_describe, cases)))


def _name(case: dict) -> str:
    return f'batch {case["batch_size"]} {case["precision"]}'


def _describe(case: dict) -> str:
    if case['status'] != 'passed':
        return f'{_name(case)}: {case["status"]}, {case["reason"]}'
    return (
        f'{_name(case)}: {case["milliseconds"]:.1f} ms, '
        f'{case["peak_memory_gib"]:.2f} GiB, loss {case["loss_last"]:.3f}'
    )
