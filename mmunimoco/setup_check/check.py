"""All checks of a config, one after the other."""

import os.path as osp
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from mmunimoco.utils.versions import collect_versions

from . import data, storage
from .findings import Finding, SetupError, run_check
from .training import TrainingCheck

NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
DATA_FIX = (
    'give train_dataloader.dataset (in most configs data_root on top) the '
    'place of the images; docs/own_data.md shows the layouts'
)


def verify_setup(
    config: str | Path,
    cfg_options: dict | None = None,
    work_dir: str | None = None,
) -> list[Finding]:
    """Check whether a pre-training config would run here.

    It takes one real step and writes one checkpoint, in a folder that is
    removed again. A check that fails does not keep the others from running,
    unless they need what it gives.

    Args:
        config (str | Path): Path of the config.
        cfg_options (dict, optional): Changes, as of ``--cfg-options``.
        work_dir (str, optional): Where the run would write. Defaults to what
            the config says, or ``work_dirs/`` and its name.

    Returns:
        list[Finding]: In the order of the checks.
    """
    return _Checks(Path(config), cfg_options, work_dir).run()


class _Checks:
    """The checks, and what they hand on to each other."""

    def __init__(
        self, path: Path, options: dict | None, work_dir: str | None
    ) -> None:
        self.path, self.options, self.work_dir = path, options, work_dir
        self.findings: list[Finding] = []
        self.cfg: Config | None = None
        self.dataset: Any = None
        self.training: TrainingCheck | None = None
        self.size = 0

    def run(self) -> list[Finding]:
        self._check('versions', describe_versions, '')
        if not self._check('config', self._load, 'correct the config'):
            return self.findings
        cfg = self.cfg
        if self._check('data', self._data, DATA_FIX):
            self._check(
                'samples', lambda: data.check_samples(self.dataset), DATA_FIX
            )
            self._check(
                'labels',
                lambda: data.check_labels(cfg, self.dataset),
                'correct the labels, label_ratio or label_list',
            )
        else:
            self._skip('the data was not found', 'samples', 'labels')
        self._check(
            'evaluation',
            lambda: data.check_evaluation(cfg),
            'correct val_dataloader and val_cfg.bank_dataloader, or train '
            'with --no-validate',
        )
        self._check_training()
        return self.findings

    def _check_training(self) -> None:
        folder = self._scratch()
        if folder is None:
            self._skip(
                'the work folder cannot be written',
                *('model', 'step', 'memory', 'checkpoint', 'disk'),
            )
            return
        try:
            self._run_training(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run_training(self, folder: Path) -> None:
        def build() -> str:
            self.training = TrainingCheck(self.cfg, folder)
            return self.training.build()

        if not self._check('model', build, 'correct model in the config'):
            self._skip(
                'there is no model', 'step', 'memory', 'checkpoint', 'disk'
            )
            return
        if self.dataset is None:
            self._skip('the data was not found', 'step', 'memory')
        elif self._check(
            'step',
            lambda: self.training.step(self.dataset),
            'see the error; smaller batches need less memory',
        ):
            self._check('memory', self.training.memory, '')
        else:
            self._skip('there was no step', 'memory')
        self._check_storage(folder)

    def _check_storage(self, folder: Path) -> None:
        def write() -> str:
            text, self.size = storage.check_checkpoint(
                self.training.runner, folder
            )
            return f'{text} (in {folder.parent})'

        where = 'set work_dir to a folder with space that you may write to'
        if self._check('checkpoint', write, where):
            self._check(
                'disk',
                lambda: storage.check_disk(self.cfg, folder, self.size),
                where,
            )
        else:
            self._skip('no checkpoint was written', 'disk')

    def _scratch(self) -> Path | None:
        """A folder in the file system of the work folder."""
        folders: list[Path] = []

        def make() -> str:
            parent = storage.existing_parent(Path(self.cfg.work_dir))
            made = tempfile.mkdtemp(prefix='.setup_check-', dir=parent)
            folders.append(Path(made))
            return f'{self.cfg.work_dir} can be written'

        self._check(
            'work folder',
            make,
            'set work_dir to a folder that you may write to',
        )
        return folders[0] if folders else None

    def _load(self) -> str:
        cfg = Config.fromfile(self.path)
        if self.options:
            cfg.merge_from_dict(self.options)
        if self.work_dir is not None:
            cfg.work_dir = self.work_dir
        elif cfg.get('work_dir') is None:
            cfg.work_dir = osp.join('work_dirs', self.path.stem)
        missing = [name for name in NEEDED if cfg.get(name) is None]
        if missing:
            raise SetupError(
                f'{self.path} has no {", ".join(missing)}',
                'give a config of pre-training, such as those in '
                'configs/unimoco',
            )
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        self.cfg = cfg
        return str(self.path)

    def _data(self) -> str:
        dataset = data.build_training_set(self.cfg)
        text = data.check_counts(self.cfg, dataset)
        self.dataset = dataset
        return text

    def _check(self, name: str, check: Any, fix: str) -> bool:
        self.findings.append(run_check(name, check, fix))
        return bool(self.findings[-1].ok)

    def _skip(self, reason: str, *names: str) -> None:
        for name in names:
            self.findings.append(Finding(name, None, reason))


def describe_versions() -> str:
    """The packages that matter, and the device."""
    versions = collect_versions()
    text = ', '.join(f'{name} {number}' for name, number in versions.items())
    device = get_device()
    if device == 'cuda':
        device = f'{torch.cuda.device_count()} x ' + (
            torch.cuda.get_device_name(0)
        )
    return f'{text}; device: {device}'
