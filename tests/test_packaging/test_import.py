"""``import mmunimoco`` registers names and changes nothing else."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import os
import signal

import mmengine.runner
import mmpretrain.utils
import mmpretrain.registry
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine import registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import backends
from mmengine.runner.checkpoint import CheckpointLoader

mmpretrain.utils.register_all_modules(init_default_scope=False)
forks = []
os.register_at_fork = lambda **handlers: forks.append(handlers)


def state():
    registries = [
        value
        for package in (registry, mmpretrain.registry)
        for value in vars(package).values()
        if isinstance(value, registry.Registry)
    ]
    return dict(
        forks=list(forks),
        torch=[torch.load, torch.save, torch.nn.Module.load_state_dict],
        threads=[torch.get_num_threads(), torch.backends.cudnn.benchmark],
        mmcv=LoadImageFromFile,
        schemes=dict(CheckpointLoader._schemes),
        tables=[dict(MODULE2PACKAGE), dict(backends.prefix_to_backends)],
        signals={s: signal.getsignal(s) for s in signal.valid_signals()},
        environment=dict(os.environ),
        names={
            (each.scope, each.name, name): module
            for each in registries
            for name, module in each.module_dict.items()
        },
    )


before = state()
import mmunimoco

after = state()
ours = {
    key
    for key, module in after['names'].items()
    if module.__module__.startswith('mmunimoco.')
}
assert len(ours) > 20, ours
for key in before['names']:
    assert after['names'][key] is before['names'][key], key
del before['names'], after['names']
assert before == after, (before, after)
import mmunimoco.safe_checkpoints

assert CheckpointLoader._schemes != before['schemes']
"""


def test_import_only_registers_names(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', CODE],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_import_is_silent_beside_mmcv_lite(tmp_path):
    code = (
        'import sys\n'
        "sys.modules['mmcv.ops.multi_scale_deform_attn'] = None\n"
        'import mmunimoco\n'
        "assert 'mmcv.cnn.bricks.transformer' in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert 'MultiScaleDeformableAttention' not in done.stderr
