"""Check in under a minute whether a pre-training config would run here.

It loads some images, counts the labels, compares settings with data and
machine, trains for one real step and writes one checkpoint, in a folder that
is removed afterwards.
"""

import math
import os.path as osp
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from torch.autograd.graph import saved_tensors_hooks

from mmunimoco.datasets.annotations import find_leaves, read_samples
from mmunimoco.datasets.class_names import check_classes_agree
from mmunimoco.datasets.skip_broken import list_broken, replaced_files
from mmunimoco.engine.config_checks import (
    advise,
    check_topk,
    images_per_step,
)
from mmunimoco.engine.config_fields import check_arguments, check_fields
from mmunimoco.engine.launch import build_runner
from mmunimoco.engine.memory_checks import (
    Advice,
    SavedTensors,
    Sizes,
    available_memory,
    check_memory,
    knn_memory,
)
from mmunimoco.utils.checkpoint import bare_model
from mmunimoco.utils.safe_load import read_checkpoint
from mmunimoco.utils.versions import collect_versions

SAMPLES = 16  # loaded, besides the first and the last
CPU_BATCH = 4
_DATA = (
    'set train_dataloader.dataset (in most configs by data_root) to the '
    'location of the images; docs/own_data.md shows the layouts'
)
_DISK = 'set work_dir to a folder with space to which you may write'
# What to change if a check fails, unless its error says so.
_FIXES = {
    'config': 'correct the config',
    'data': _DATA,
    'samples': _DATA,
    'labels': 'correct the labels, label_ratio or label_list',
    'evaluation': 'correct val_dataloader and val_cfg.bank_dataloader, or '
    'train with --no-validate',
    'work folder': _DISK,
    'model': 'correct model in the config',
    'step': 'see the error; smaller batches, gradient_checkpointing=True in '
    'StepOptionsHook and mixed precision (--amp) need less memory',
    'checkpoint': _DISK,
    'disk': _DISK,
}


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool | None  # None if it was skipped
    text: str
    fix: str = ''  # what to change if it failed
    warning: bool = False  # it would run, but hardly as meant


class SetupError(Exception):
    """A problem, with what to change."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.fix = fix


def verify_setup(
    config: str | Path,
    cfg_options: dict | None = None,
    work_dir: str | None = None,
    processes: int = 1,
) -> list[Finding]:
    """Check a pre-training config; one failed check does not stop the rest.

    Args:
        config (str | Path): Path of the config.
        cfg_options (dict, optional): Changes, as in ``--cfg-options``.
        work_dir (str, optional): Where the run would write. Defaults to that
            of the config, or ``work_dirs/<name of the config>``.
        processes (int): With how many the run will start. Defaults to 1.

    Returns:
        list[Finding]: In the order of the checks.
    """
    report = _Report()
    report.check('versions', _describe_versions)
    cfg = report.check(
        'config', lambda: _load_config(Path(config), cfg_options, work_dir)
    )
    if cfg is None:
        return report.findings
    dataset = report.check('data', _build_dataset, cfg)
    report.check('samples', _load_samples, dataset)
    report.check('labels', _count_labels, cfg, dataset)
    evaluated = report.check(
        'evaluation', lambda: _load_evaluation_samples(cfg, dataset)
    )
    with ExitStack() as stack:
        folder = report.check('work folder', _make_folder, cfg, stack)
        runner = report.check('model', _build, cfg, folder)
        sizes = report.check(
            'settings', _measure, cfg, dataset, evaluated, processes
        )
        report.warn(_compare_settings, cfg, runner, sizes, evaluated)
        done = report.check('step', _train_one_step, runner, dataset)
        report.check('memory', _estimate_memory, cfg, sizes, done)
        size = report.check('checkpoint', _save, runner, done)
        report.check('disk', _check_space, cfg, size)
    return report.findings


class _Report:
    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def check(
        self, name: str, function: Callable[..., tuple[str, Any]], *needed: Any
    ) -> Any:
        """Run a check, unless one of the values it needs is None.

        ``function`` returns a text and a value for other checks. Returns this
        value, None if the check failed or was skipped.
        """
        value = None
        if any(each is None for each in needed):
            finding = Finding(name, None, 'there is a problem above')
        else:
            try:
                text, value = function(*needed)
                finding = Finding(name, True, text)
            except SetupError as error:
                finding = Finding(name, False, str(error), error.fix)
            except Exception as error:  # whatever the config leads to
                fix = _FIXES.get(name, '')
                finding = Finding(name, False, _one_line(error), fix)
        self.findings.append(finding)
        return value

    def warn(
        self, function: Callable[..., list[Advice]], *needed: Any
    ) -> None:
        """Add what ``function`` advises, unless a value it needs is None."""
        if all(each is not None for each in needed):
            self.findings += [
                Finding(x.name, True, x.text, x.fix, warning=True)
                for x in function(*needed)
            ]


def _one_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.strip().splitlines()[0]


def _describe_versions() -> tuple[str, bool]:
    versions = dict(collect_versions(), device=get_device())
    return ', '.join(f'{name} {v}' for name, v in versions.items()), True


def _load_config(
    path: Path, options: dict | None, work_dir: str | None
) -> tuple[str, Config]:
    cfg = Config.fromfile(path)
    check_fields(cfg, options or {})
    cfg.merge_from_dict(options or {})
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', path.stem)
    needed = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    missing = [name for name in needed if cfg.get(name) is None]
    if missing:
        raise SetupError(
            f'{path} has no {", ".join(missing)}',
            'use a pre-training config, such as those in configs/unimoco',
        )
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    check_arguments(cfg)
    return str(path), cfg


def _build_dataset(cfg: Config) -> tuple[str, Any]:
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    count, batch = len(dataset), cfg.train_dataloader.batch_size
    if count == 0:
        raise ValueError('there are no images')
    if count < batch and cfg.train_dataloader.get('drop_last'):
        raise SetupError(
            f'{count} images do not fill one batch of {batch}',
            f'set train_dataloader.batch_size={count} or less, or '
            'train_dataloader.drop_last=False',
        )
    kinds = {type(leaf).__name__ for leaf in find_leaves(dataset)}
    return f'{count} images of {", ".join(sorted(kinds))}', dataset


def _load_samples(dataset: Any) -> tuple[str, bool]:
    """Load the first, the last and some random samples."""
    count = len(dataset)
    drawn = random.Random(0).sample(range(count), min(SAMPLES, count))
    indices = sorted({0, count - 1, *drawn})
    failures, replaced, views = [], {}, None
    for index in indices:
        try:
            sample = dataset[index]
        except Exception as error:  # of any backend or transform
            failures.append(f'{index}: {_one_line(error)}')
            continue
        if isinstance(sample, dict):
            replaced.update(replaced_files(sample.get('data_samples')))
            views = views or _describe_views(sample.get('inputs'))
    if failures:
        raise SetupError(
            f'{len(failures)} of {len(indices)} samples do not load: '
            + '; '.join(failures[:3]),
            'repair or remove the files, or wrap the dataset in '
            'dict(type="SkipBrokenImages", max_broken=N, dataset=...), which '
            'replaces up to N broken files',
        )
    text = f'{len(indices)} samples load, each {views}'
    if replaced:
        text += f'; broken files are replaced:{list_broken(replaced)}'
    return text, True


def _describe_views(inputs: Any) -> str:
    """Such as '2 views of 3 x 224 x 224, torch.uint8'."""
    views = inputs if isinstance(inputs, list | tuple) else [inputs]
    if not getattr(views[0], 'shape', ()):
        return 'an index (the images are on the device)'
    size = ' x '.join(map(str, views[0].shape))
    return f'{len(views)} views of {size}, {views[0].dtype}'


def _count_labels(cfg: Config, dataset: Any) -> tuple[str, bool]:
    leaves = find_leaves(dataset)
    table = read_samples(leaves)
    total, labeled = len(table.paths), int(table.has_label.sum())
    if labeled == 0:
        return f'none of {total} images has a label: equal to MoCo v2', True
    counts = np.bincount(table.classes)
    limits = {'model.head.num_classes': cfg.model.head.get('num_classes')}
    for leaf in leaves:
        classes = leaf.metainfo.get('classes') or ()
        limits[f'the list of classes of {type(leaf).__name__}'] = len(classes)
    for field, limit in limits.items():
        if limit and len(counts) > limit:
            raise SetupError(
                f'there is a label {len(counts) - 1}, but {field} allows '
                f'{limit} classes',
                f'set {field} to {len(counts)} or more, or correct the labels',
            )
    counts = counts[counts > 0]
    text = f'{len(counts)} classes with {counts.min()} to {counts.max()}'
    return f'{labeled} of {total} images have a label, {text} each', True


def _load_evaluation_samples(
    cfg: Config, dataset: Any | None
) -> tuple[str, dict]:
    """Build the data sets of validation, and load two samples of each.

    The value are the data sets. Class ids have to mean the same as in training
    (``dataset``, if it could be built).
    """
    bank = (cfg.get('val_cfg') or {}).get('bank_dataloader')
    loaders = {
        'val_dataloader': cfg.get('val_dataloader'),
        'val_cfg.bank_dataloader': bank,
    }
    texts, datasets = [], {}
    for field, loader in loaders.items():
        if not loader:
            continue
        one = datasets[field] = DATASETS.build(loader.dataset)
        if not len(one):
            raise ValueError(f'{field} has no images')
        for index in {0, len(one) - 1}:
            one[index]
        texts.append(f'{field}: {len(one)} images')
    trained = {} if dataset is None else {'train_dataloader': dataset}
    # Class ids that mean another class elsewhere are an error.
    named = {**trained, **datasets}
    check_classes_agree({f'{x}.dataset': named[x] for x in named})
    return '; '.join(texts) or 'the config does not validate', datasets


def _measure(
    cfg: Config, dataset: Any, evaluated: dict, processes: int
) -> tuple[str, Sizes]:
    """Count what the settings are compared with."""
    bank = evaluated.get('val_cfg.bank_dataloader', ())
    queries = evaluated.get('val_dataloader', ()) if bank else ()
    sizes = Sizes(len(dataset), processes, len(bank), len(queries))
    step = images_per_step(cfg, processes)
    return f'{step} images an optimizer step, {processes} process(es)', sizes


def _compare_settings(
    cfg: Config, runner: Runner, sizes: Sizes, evaluated: dict
) -> list[Advice]:
    """What will go wrong or be in vain, though the run would start."""
    queries = evaluated.get('val_dataloader')
    classes = getattr(queries, 'metainfo', {}).get('classes') or ()
    found = advise(cfg, bare_model(runner.model), sizes)
    found += check_topk(cfg, len(classes))
    return [advice for advice in found if advice.name != 'memory']


def _make_folder(cfg: Config, stack: ExitStack) -> tuple[str, Path]:
    """Make a temporary folder in the file system of the work folder."""
    parent = _existing_parent(cfg)
    folder = tempfile.TemporaryDirectory(prefix='.setup_check-', dir=parent)
    path = Path(stack.enter_context(folder))
    return f'{cfg.work_dir} can be written', path


def _existing_parent(cfg: Config) -> Path:
    path = Path(cfg.work_dir).absolute()
    folder = next(p for p in (path, *path.parents) if p.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f'{folder} is a file, not a folder')
    return folder


def _build(cfg: Config, folder: Path) -> tuple[str, Runner]:
    """Build a Runner of one step that writes nothing outside the folder."""
    cfg = deepcopy(cfg)
    cfg.work_dir = str(folder)
    cfg.experiment_name = f'setup-{folder.name}-{time.time_ns()}'
    cfg.log_level = 'ERROR'
    cfg.launcher, cfg.resume = 'none', False
    length = 'max_iters' if cfg.train_cfg.get('max_iters') else 'max_epochs'
    cfg.train_cfg[length] = 1
    for field in ('val', 'test'):
        for part in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{field}_{part}'] = None
    if (cfg.get('default_hooks') or {}).get('checkpoint'):
        cfg.default_hooks.checkpoint.update(
            interval=-1, save_last=False, save_best=None
        )
    loader = cfg.train_dataloader
    loader.persistent_workers = False
    loader.setdefault('collate_fn', dict(type='default_collate'))
    if get_device() == 'cpu':
        _reduce_for_cpu(cfg)
    runner = build_runner(cfg)
    model = bare_model(runner.model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    text = f'{type(model).__name__}, {trained / 1e6:.1f} M parameters'
    if hasattr(getattr(model, 'head', None), 'queue'):
        keys, dim = model.head.queue.shape
        text += f', queue of {keys} keys of {dim}'
    return text, runner


def _reduce_for_cpu(cfg: Config) -> None:
    """Remove what a CPU does not support or is too slow for."""
    loader = cfg.train_dataloader
    limit = _limit_splits(cfg.model, loader.batch_size)
    loader.update(pin_memory=False, batch_size=min(loader.batch_size, limit))
    if str(cfg.optim_wrapper.get('type', '')).startswith('Amp'):
        cfg.optim_wrapper.type = 'OptimWrapper'
        for option in ('dtype', 'loss_scale', 'use_fp16'):
            cfg.optim_wrapper.pop(option, None)
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('compile'):  # of StepOptionsHook
            hook.compile = False


def _limit_splits(model: ConfigDict, batch_size: int) -> int:
    """Let CPU_BATCH images fill all groups of a split batch norm.

    Returns the images to train on: more if the batch is too small for the
    groups in the first place, which has to be reported.
    """
    limit = CPU_BATCH
    for value in model.values():
        if not isinstance(value, ConfigDict):
            continue
        limit = max(limit, _limit_splits(value, batch_size))
        splits = value.get('num_splits')
        if isinstance(splits, int) and 2 * splits <= batch_size:
            value.num_splits = min(splits, CPU_BATCH // 2)
        elif splits:
            limit = batch_size
    return limit


class _LossHook(Hook):
    """Keeps the loss of the step, in ``loss``."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: dict
    ) -> None:
        self.loss = float(outputs['loss'])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: on a busy machine several wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_one_step(runner: Runner, dataset: Any) -> tuple[str, float]:
    """Train for a step. The value is the bytes of activations per image."""
    loader, hook = runner._train_dataloader, _LossHook()
    loader['dataset'] = dataset  # built already
    if len(dataset) > loader['batch_size']:
        loader['num_batch_per_epoch'] = 1
    runner.register_hook(hook, priority='HIGHEST')
    saved = SavedTensors(runner.model)
    start = time.monotonic()
    with saved_tensors_hooks(saved, lambda tensor: tensor), _one_thread():
        runner.train()
    seconds, device = time.monotonic() - start, get_device()
    if not math.isfinite(hook.loss):
        raise SetupError(
            f'the loss of the first step is {hook.loss}',
            'check the learning rate, the temperature of the head, and mean '
            'and std of data_preprocessor',
        )
    text = (
        f'loss {hook.loss:.3f} on {device} for {loader["batch_size"]} images '
        f'in {seconds:.1f} s'
    )
    per_image = saved.bytes / loader['batch_size']
    if device == 'cpu':
        return f'{text}; no mixed precision, not compiled', per_image
    peak = torch.cuda.max_memory_allocated() / 2**30
    total = torch.cuda.mem_get_info()[1] / 2**30
    return f'{text}; {peak:.1f} of {total:.1f} GB GPU memory', per_image


def _estimate_memory(
    cfg: Config, sizes: Sizes, per_image: float
) -> tuple[str, bool]:
    """Compare the memory that a step (on a CPU) and kNN need with what is."""
    knn = knn_memory(cfg, sizes)
    images = sizes.processes * (cfg.train_dataloader.batch_size or 0)
    step = {f'the activations of {images} images': images * per_image}
    if get_device() != 'cpu':
        step = {}  # of the GPU, and the step has shown that it is enough
    texts = []
    for name, needs in (('a step', step), ('kNN', knn)):
        advice = check_memory(needs)
        if advice is not None:
            raise SetupError(f'{name}: {advice.text}', advice.fix)
        if needs:
            texts.append(f'{name} {sum(needs.values()) / 2**30:.1f} GB')
    free = available_memory()
    rest = 'unknown' if free is None else f'{free / 2**30:.1f} GB'
    return f'needed: {", ".join(texts) or "little"}; available: {rest}', True


def _save(runner: Runner, done: bool) -> tuple[str, int]:
    """Write a checkpoint, read it back and verify its checksums."""
    path = Path(runner.work_dir, 'setup_check.pth')
    runner.save_checkpoint(str(path.parent), path.name)
    read_checkpoint(path)
    size = path.stat().st_size
    return f'{size / 2**20:.0f} MB, written and read back', size


def _check_space(cfg: Config, size: int) -> tuple[str, bool]:
    """Check that all checkpoints the config keeps fit on the disk."""
    count = _kept_checkpoints(cfg)
    need = count * size
    free = shutil.disk_usage(_existing_parent(cfg)).free
    text = f'{count} checkpoints at a time take {need / 2**30:.2f} GB'
    text = f'{free / 2**30:.1f} GB free, {text}'
    if need > free:
        raise SetupError(
            text,
            'lower default_hooks.checkpoint.max_keep_ckpts, or set work_dir '
            'to a folder on a larger disk',
        )
    return text, True


def _kept_checkpoints(cfg: Config) -> int:
    """Maximum number of checkpoints, including one that is being written."""
    options = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    best = options.get('save_best') or []
    best = 1 if isinstance(best, str) else len(best)
    keep = options.get('max_keep_ckpts', -1)
    if keep < 0:
        length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs
        keep = math.ceil(length / options.get('interval', 1))
    return keep + best + 1
