"""The part of the setup check that builds, trains a step and writes."""

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.autograd.graph import saved_tensors_hooks

from mmunimoco.engine.checks.config_values import run_length
from mmunimoco.engine.checks.memory import (
    SavedTensors,
    Sizes,
    available_memory,
    check_memory,
    knn_memory,
)
from mmunimoco.engine.launch import build_runner
from mmunimoco.engine.step_options import without_amp
from mmunimoco.utils.checkpoint import bare_model
from mmunimoco.utils.safe_load import read_checkpoint

CPU_BATCH = 4


class SetupError(Exception):
    """A problem, with what to change."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.fix = fix


def make_folder(cfg: Config, stack: ExitStack) -> tuple[str, Path]:
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


def build(cfg: Config, folder: Path) -> tuple[str, Runner]:
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
        cfg.optim_wrapper = without_amp(cfg.optim_wrapper)
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
        self.loss = outputs['loss'].item()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: on a busy machine several wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_one_step(runner: Runner, dataset: Any) -> tuple[str, float]:
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


def estimate_memory(
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


def save(runner: Runner, done: bool) -> tuple[str, int]:
    """Write a checkpoint, read it back and verify its checksums."""
    path = Path(runner.work_dir, 'setup_check.pth')
    runner.save_checkpoint(str(path.parent), path.name)
    read_checkpoint(path)
    size = path.stat().st_size
    return f'{size / 2**20:.0f} MB, written and read back', size


def check_space(cfg: Config, sizes: Sizes, size: int) -> tuple[str, bool]:
    """Check that all checkpoints the config keeps fit on the disk."""
    count = _kept_checkpoints(cfg, sizes)
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


def _kept_checkpoints(cfg: Config, sizes: Sizes) -> int:
    """Maximum number of checkpoints, including one that is being written."""
    options = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    best = options.get('save_best') or []
    best = 1 if isinstance(best, str) else len(best)
    keep = options.get('max_keep_ckpts', -1)
    if keep < 0:
        length = run_length(cfg, sizes, options.get('by_epoch', True)) or 0
        interval = options.get('interval', 1)
        keep = math.ceil(length / interval) if interval > 0 else 0
    return keep + best + 1
