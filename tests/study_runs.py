"""Tiny studies whose runs start in a forked process, not a new interpreter."""

import os
import runpy
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import torch
from exact_runs import PRELOAD, ROOT, start, write_config

from mmunimoco.study import pool
from mmunimoco.study.command_line import main

TOOL = ROOT / 'tools/study.py'
STUDY = """
title = 'Tiny'
base = 'tiny_0.py'
variants = dict({variants})
seeds = {seeds}
evaluations = dict(knn=dict(type='knn', k=5, temperature=0.1))
published = [dict(
    name='Others', evaluation='knn', value=81.2, std=0.3, source='Table 3')]
"""
# A linear probe that is tested only after it was trained.
LINEAR = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64))
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(indices=100))
test_dataloader = dict(dataset=dict(indices=50))
train_cfg = dict(max_epochs=2)
val_cfg = None
val_dataloader = None
val_evaluator = None
"""
UNICON = 'unicon=dict()'
SUPCON = "supcon={'model.head.loss': dict(_delete_=True, type='SupConLoss')}"
RANDOM = "random=dict(checkpoint='none')"


def study_text(
    *variants: str, seeds: tuple[int, ...] = (0, 1), more: str = ''
) -> str:
    """A study file with these variants."""
    text = STUDY.format(variants=', '.join(variants), seeds=list(seeds))
    return text + more


def write_study(folder: Path, text: str) -> Path:
    """Write the study and its config of two epochs of 7 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, 0, 'by_epoch=False, interval=2')
    base = ROOT / 'configs/demo/resnet18_linear_fmnist.py'
    (folder / 'linear.py').write_text(LINEAR.format(base=str(base)))
    path = folder / 'study.py'
    path.write_text(text)
    return path


def start_study(*arguments, **environment):
    """Start the tool in a forked process; its runs are real subprocesses."""
    return start(TOOL, *arguments, env=environment)


def run_study(monkeypatch, *arguments, popen=None) -> int:
    """Run the tool in this process; its runs are forked."""
    popen = popen or ForkedPopen
    forked = SimpleNamespace(**vars(subprocess) | dict(Popen=popen))
    monkeypatch.setattr(pool, 'subprocess', forked)
    monkeypatch.setattr(pool, '_CLOCK_SECONDS', 0.2)
    return main([str(argument) for argument in arguments])


class ForkedPopen:
    """``subprocess.Popen`` of a Python script, seconds faster."""

    devices: list = []  # of all that were started

    def __init__(self, command, stdout, env, **_):
        self.devices.append(env.get('CUDA_VISIBLE_DEVICES'))
        context = get_context('forkserver')
        context.set_forkserver_preload(PRELOAD)
        words = command[command.index('-u') + 1 :]
        self._process = context.Process(
            target=_run, args=(words, stdout.name, env)
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        """Exit status, or None."""
        return self._process.exitcode

    def terminate(self):
        """Send SIGTERM."""
        self._process.terminate()

    def wait(self):
        """Wait for the end."""
        self._process.join()


def _run(words: list[str], console: str, environment: dict) -> None:
    os.setsid()
    os.environ.update(environment)
    file = os.open(console, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    sys.argv = words
    import mmengine.runner.runner

    mmengine.runner.runner.collect_env = dict
    runpy.run_path(words[0], run_name='__main__')
