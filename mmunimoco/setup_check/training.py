"""A step of the real training, in a folder of its own."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner

from benchmarks.saved_tensors import saved_bytes
from benchmarks.trainer import SteppedTrainLoop
from mmunimoco.engine.launch import build_runner
from mmunimoco.utils.checkpoint import bare_model

from .findings import SetupError

CPU_BATCH = 4
# Each group of a split BN needs two images.
SPLIT_BATCH = 16


class TrainingCheck:
    """Builds what the config trains, and takes one step.

    Args:
        cfg (Config): The config; a copy is changed.
        folder (Path): For what a run writes.

    Attributes:
        batch (int): Images of the step.
        wanted (int): Images of a batch of the config.
        activations (int): Bytes that the step kept for its backward pass.
        peak (int | None): Bytes of the GPU's memory at most.
    """

    def __init__(self, cfg: Config, folder: Path) -> None:
        self.device = get_device()
        self.cfg, self.changes = cfg.copy(), []
        self.wanted = self.batch = cfg.train_dataloader.batch_size
        self.amp = str(cfg.optim_wrapper.get('type', '')).startswith('Amp')
        self.activations, self.peak = 0, None
        self.runner: Runner | None = None
        self._prepare(folder)
        if self.device == 'cpu':
            self._reduce()

    def build(self) -> str:
        """Build the model, and load what the config starts from."""
        self.runner = build_runner(self.cfg)
        model = bare_model(self.runner.model)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        text = f'{type(model).__name__}, {trained / 1e6:.1f} M parameters'
        if hasattr(getattr(model, 'head', None), 'queue'):
            keys, dim = model.head.queue.shape
            text += f', queue of {keys} keys of {dim}'
        return text

    def step(self, dataset: Any) -> str:
        """Load a batch by the config's data loader and train on it.

        Args:
            dataset (Dataset): What the config trains on, built.
        """
        runner = self.runner
        runner._train_dataloader['dataset'] = dataset
        runner.train()  # SteppedTrainLoop: everything up to the first step
        start = time.monotonic()
        batch = next(iter(runner.train_dataloader))
        loaded = time.monotonic()
        losses: dict[str, Any] = {}
        if self.device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        self.activations = saved_bytes(
            lambda: losses.update(
                runner.model.train_step(batch, runner.optim_wrapper)
            ),
            runner.model,
        )
        if self.device == 'cuda':
            self.peak = torch.cuda.max_memory_allocated()
        loss = losses['loss'].item()
        if not math.isfinite(loss):
            raise SetupError(
                f'the loss of the first step is {loss}',
                'check the learning rate, the temperature of the head and '
                'mean and std of data_preprocessor',
            )
        text = (
            f'loss {loss:.3f} on {self.device} for {self.batch} images; '
            f'loaded in {loaded - start:.1f} s, trained in '
            f'{time.monotonic() - loaded:.1f} s'
        )
        return '; '.join([text, *self.changes])

    def memory(self) -> str:
        """What a step of the config's batch needs, by what this one did."""
        model = bare_model(self.runner.model)
        weights = _bytes(model.parameters())
        queue = _bytes(
            buffer for name, buffer in model.named_buffers() if 'queue' in name
        )
        gradients = _bytes(p for p in model.parameters() if p.requires_grad)
        state = self.runner.optim_wrapper.optimizer.state.values()
        optimizer = _bytes(
            value
            for values in state
            for value in values.values()
            if torch.is_tensor(value)
        )
        kept = self.activations * self.wanted // self.batch
        if self.amp and self.device == 'cpu':
            kept //= 2
        total = weights + queue + gradients + optimizer + kept
        text = (
            f'about {_gb(total)} for a batch of {self.wanted}: weights '
            f'{_gb(weights)}, gradients {_gb(gradients)}, optimizer '
            f'{_gb(optimizer)}, queue {_gb(queue)}, activations {_gb(kept)}'
        )
        if self.peak is None:
            return text
        limit = torch.cuda.get_device_properties(0).total_memory
        if max(total, self.peak) > limit:
            raise SetupError(
                f'{text}; the GPU has {_gb(limit)}',
                'train_dataloader.batch_size lower, gradient_checkpointing '
                'of StepOptionsHook, or mixed precision (--amp)',
            )
        return f'{text}; measured {_gb(self.peak)} of {_gb(limit)}'

    def _prepare(self, folder: Path) -> None:
        """One step, no validation, nothing written outside the folder."""
        cfg = self.cfg
        cfg.work_dir = str(folder)
        cfg.experiment_name = f'setup-{folder.name}-{time.time_ns()}'
        cfg.log_level = 'ERROR'
        cfg.launcher, cfg.resume = 'none', False
        cfg.train_cfg = dict(type=SteppedTrainLoop.__name__, max_epochs=1)
        for field in ('val', 'test'):
            for part in ('cfg', 'dataloader', 'evaluator'):
                cfg[f'{field}_{part}'] = None
        loader = cfg.train_dataloader
        loader.persistent_workers = False
        loader.setdefault('collate_fn', dict(type='default_collate'))

    def _reduce(self) -> None:
        """What a CPU is too slow for, or does not have."""
        cfg, loader = self.cfg, self.cfg.train_dataloader
        loader.pin_memory = False
        split = 'SplitBatchNorm' in str(cfg.model)
        batch = SPLIT_BATCH if split else CPU_BATCH
        if self.batch > batch:
            self.batch = loader.batch_size = batch
            self.changes.append(f'batch {batch} for {self.wanted} (CPU)')
        if self.amp:
            cfg.optim_wrapper.type = 'OptimWrapper'
            for option in ('dtype', 'loss_scale', 'use_fp16'):
                cfg.optim_wrapper.pop(option, None)
            self.changes.append('no mixed precision (CPU)')
        for hook in cfg.get('custom_hooks') or []:
            if hook.pop('compile', False):  # of StepOptionsHook
                self.changes.append('not compiled (CPU)')


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _gb(number: int) -> str:
    if number < 2**20:
        return f'{number / 2**10:.0f} KB'
    if number < 2**30:
        return f'{number / 2**20:.0f} MB'
    return f'{number / 2**30:.1f} GB'
