"""The parts of ``--transfer``: mmcv's CUDA ops, then real transfer configs."""

import json
import math
import os
import statistics
import sys
from functools import partial
from pathlib import Path

from .demo_part import launcher_env
from .part import Outcome, Part
from .transfer_run import CASES, STEPS, Case, config_of

# Seconds; the sum, with what is around it, stays below nine minutes.
BUILD_LIMIT = 330
CASE_LIMIT = 50
# The first steps choose algorithms and fill caches.
WARMUP = 5


def plan_transfer(
    device: str, root: Path, folder: Path, built: Path, source: str | None
) -> list[Part]:
    """List the parts of ``--transfer``; without a GPU all are skipped.

    Args:
        device (str): 'cuda' or 'cpu'.
        root (Path): The checkout.
        folder (Path): Where parts may write.
        built (Path): Where mmcv is built; a later call finds it there.
        source (str | None): Source of mmcv, None for a download.

    Returns:
        list[Part]: In the order in which they run.
    """
    parts = [
        Part(
            'mmcv-ops',
            'mmcv with CUDA ops for the GPU at hand',
            BUILD_LIMIT,
            partial(_build_command, built, source),
            read_ops,
        )
    ]
    # The built mmcv goes before the one of the environment; the data come
    # from what the tests generate.
    path = [str(built), str(root / 'tests'), os.environ.get('PYTHONPATH', '')]
    for name, case in CASES.items():
        parts.append(
            Part(
                name,
                f'{STEPS} steps of {config_of(case).stem} at full size',
                CASE_LIMIT,
                partial(_run_command, name),
                partial(read_steps, case=case),
                dict(PYTHONPATH=os.pathsep.join(path)),
            )
        )
    for part in parts:
        if device != 'cuda':
            part.command, part.skip_reason = None, 'no CUDA device'
        elif part.name in CASES:
            part.env |= launcher_env(folder / f'bin-{part.name}')
    return parts


def _build_command(built: Path, source: str | None, folder: Path) -> list:
    return [
        *(sys.executable, '-m', 'benchmarks.gpu_check.mmcv_ops'),
        *('--target', str(built), '--out', str(folder / 'ops.json')),
        *(['--source', source] if source else []),
    ]


def _run_command(name: str, folder: Path) -> list[str]:
    module = 'benchmarks.gpu_check.transfer_run'
    return [sys.executable, '-m', module, name, str(folder)]


def read_ops(folder: Path) -> Outcome:
    """Read what the build left behind.

    Args:
        folder (Path): Folder of the part.

    Returns:
        Outcome: ``results`` as written by ``mmcv_ops.py``.
    """
    path = folder / 'ops.json'
    if not path.is_file():
        return Outcome(faults=['mmcv was not built'])
    results = json.loads(path.read_text())
    if results['mmcv_and_cuda'] is None:
        return Outcome(results, ['its ops do not run on the GPU'])
    return Outcome(results, [], f'mmcv, CUDA: {results["mmcv_and_cuda"]}')


def read_steps(folder: Path, case: Case) -> Outcome:
    """Read what ten steps of training left behind.

    Args:
        folder (Path): Folder of the part.
        case (Case): What was run.

    Returns:
        Outcome: ``results`` has the config, the loss of each step,
        milliseconds of each step (with waiting for data, which is also given
        alone), their median after the warm-up and the peak of memory in MiB.
    """
    logs = sorted((folder / 'run').glob('*/vis_data/scalars.json'))
    if not logs:
        return Outcome(faults=['no log of the training was written'])
    lines = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    steps = [line for line in lines if 'loss' in line]
    losses = [line['loss'] for line in steps]
    faults = []
    if len(steps) != STEPS:
        faults.append(f'{len(steps)} of {STEPS} steps were logged')
    if not all(map(math.isfinite, losses)):
        faults.append('a loss is not finite')
    if faults:
        return Outcome(dict(log=lines), faults)
    milliseconds = [1000 * line['time'] for line in steps]
    results = dict(
        config=case.config,
        losses=losses,
        milliseconds=milliseconds,
        milliseconds_for_data=[1000 * line['data_time'] for line in steps],
        milliseconds_median=statistics.median(milliseconds[WARMUP:]),
        memory_mib=max(line.get('memory', 0) for line in steps),
    )
    summary = (
        f'{results["milliseconds_median"]:.0f} ms, '
        f'{results["memory_mib"] / 1024:.1f} GiB, loss {losses[0]:.2f} to '
        f'{losses[-1]:.2f}'
    )
    return Outcome(results, [], summary)
