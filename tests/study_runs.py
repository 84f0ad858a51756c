"""Tiny studies."""

from pathlib import Path

from exact_runs import ROOT, start, write_config

from mmunimoco.study import pool, process
from mmunimoco.study.command_line import main
from mmunimoco.study.process import ForkedProcess

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
    """Start the tool in a process of its own; its runs have one thread."""
    one = dict(OMP_NUM_THREADS='1')
    return start(TOOL, *arguments, env=one | environment)


def run_study(monkeypatch, *arguments, kind=None) -> int:
    """Run the tool in this process; its runs are forked."""
    prepare_forks(monkeypatch)
    monkeypatch.setattr(process, 'ForkedProcess', kind or Forked)
    monkeypatch.setattr(pool, '_CLOCK_SECONDS', 0.2)
    return main([str(argument) for argument in arguments])


def prepare_forks(monkeypatch) -> None:
    """Let runs have one thread: those of this process do not survive."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setattr(process, 'get_device', lambda: 'cpu')


class Forked(ForkedProcess):
    """A run that remembers its device."""

    devices: list = []  # of all that were started

    def __init__(self, words, console, environment):
        self.devices.append(environment.get('CUDA_VISIBLE_DEVICES'))
        super().__init__(words, console, environment)
