"""What a run prints and logs, without waiting for the device each step."""

import atexit
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.logging import MMLogger, print_log
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.visualization import LocalVisBackend
from mmpretrain.registry import HOOKS, VISBACKENDS
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from .checks.memory import part

# Hundreds of lines before the first step; the log file has them.
_LONG = ('System environment:', 'Config:\n', 'Hooks will be executed')


def _is_brief(record: logging.LogRecord) -> bool:
    """Whether a record is not one of the long ones at the start."""
    text = record.getMessage().lstrip('\n- ')
    return record.levelno > logging.INFO or not text.startswith(_LONG)


@RUNNERS.register_module()
class BriefRunner(Runner):
    """mmengine's ``Runner``, which prints no config and no list of hooks.

    The log file has them. ``tools/train.py`` and ``tools/test.py`` use it,
    except with ``-v``.
    """

    def build_logger(self, *args: Any, **options: Any) -> MMLogger:
        """Build the logger, and filter what it prints."""
        logger = super().build_logger(*args, **options)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_brief)
        return logger


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show the progress of training, also on small data and slow machines.

    ``LoggerHook`` counts steps, of which a small data set has few in an
    epoch, and a CPU makes few in a minute. So

    - in a terminal there is a bar with the time that remains;
    - a step is logged, in the usual form, if nothing was for ``seconds``.
      What :class:`DelayedRuntimeInfoHook` holds back is not read for it.

    Args:
        seconds (float): The longest time without a line. Defaults to 30.

    Raises:
        ValueError: If ``seconds`` is not positive.
    """

    # After the LoggerHook.
    priority = 'VERY_LOW'

    def __init__(self, seconds: float = 30) -> None:
        if not seconds > 0:
            raise ValueError(
                f'ProgressHook.seconds must be positive, got {seconds}'
            )
        self.seconds = seconds
        self._last = 0.0
        self._bar: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        """Start counting the time, and show the bar."""
        self._last = time.monotonic()
        if not is_main_process() or not sys.stdout.isatty():
            return
        self._bar = Progress(
            *(TextColumn('{task.description}'), BarColumn()),
            *(MofNCompleteColumn(), TimeRemainingColumn()),
            console=Console(file=sys.stdout),
            refresh_per_second=2,
            transient=True,
        )
        self._bar.add_task('', total=runner.max_iters, completed=runner.iter)
        self._bar.start()
        # An error must not leave the terminal without a cursor.
        atexit.register(self._bar.stop)
        _print_to(runner.logger, sys.stdout)  # rich's, above the bar

    def after_train(self, runner: Runner) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            _print_to(runner.logger, sys.stdout)
            self._bar = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *_, **__
    ) -> None:
        """Move the bar, and log the step if it is time."""
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                completed=runner.iter + 1,
                description=_describe(runner),
            )
        now = time.monotonic()
        if self._is_printed(runner, batch_idx):
            self._last = now
        elif now - self._last >= self.seconds:
            self._last = now
            _, text = runner.log_processor.get_log_after_iter(
                runner, batch_idx, 'train'
            )
            runner.logger.info(text)

    def _is_printed(self, runner: Runner, batch_idx: int) -> bool:
        """Whether a ``LoggerHook`` prints this step."""
        loader = runner.train_dataloader
        return any(
            self.every_n_inner_iters(batch_idx, hook.interval)
            or (
                self.end_of_epoch(loader, batch_idx)
                and (not hook.ignore_last or len(loader) <= hook.interval)
            )
            for hook in runner.hooks
            if isinstance(hook, LoggerHook)
        )


def _describe(runner: Runner) -> str:
    """Epoch and last known loss."""
    text = 'training'
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        text = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
    if 'train/loss' in runner.message_hub.log_scalars:
        loss = runner.message_hub.get_scalar('train/loss').current()
        text += f', loss {loss:.3f}'
    return text


def _print_to(logger: MMLogger, stream: TextIO) -> None:
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(stream)


@VISBACKENDS.register_module()
class PatientVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend``, which does not stop a run.

    What cannot be written to ``scalars.json`` (disk full, no permission) is
    left out of it, with an error in the log.
    """

    def _dump(
        self, value_dict: dict, file_path: str, file_format: str
    ) -> None:
        path = Path(file_path)
        size = path.stat().st_size if path.is_file() else 0
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one
                os.truncate(path, size)
            print_log(
                f'{path} could not be written: {error}. Training continues.',
                logger='current',
                level=logging.ERROR,
            )


@HOOKS.register_module()
class DelayedRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, without a device synchronisation a step.

    mmengine reads loss and log values every iteration, so the host waits for
    the GPU and the GPU then for the next step to be queued. This hook keeps
    them on the device until something is logged, saved or validated or the
    epoch ends, and reads all of them at once. What is logged is the same. It
    replaces mmengine's::

        default_hooks = dict(runtime_info=dict(type='DelayedRuntimeInfoHook'))
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[str, Any]] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep the step's log values, scalar tensors or numbers."""
        for name, value in (outputs or {}).items():
            if isinstance(value, torch.Tensor):
                value = value.detach()
            self._waiting.append((name, value))
        if is_logged(self, runner, batch_idx):
            self._read(runner)

    def before_val(self, runner: Runner) -> None:
        """Let what judges the steps before a validation read them."""
        super().before_val(runner)
        if self._waiting:
            self._read(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the values of all steps, also between two that are logged."""
        if self._waiting:
            self._read(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def _read(self, runner: Runner) -> None:
        """Move the values to mmengine's message hub."""
        tensors = [x for _, x in self._waiting if isinstance(x, torch.Tensor)]
        values = iter(
            torch.stack([x.double().reshape(()) for x in tensors]).tolist()
            if tensors
            else []
        )
        for name, value in self._waiting:
            if isinstance(value, torch.Tensor):
                value = next(values)
            runner.message_hub.update_scalar(f'train/{name}', value)
        self._waiting = []


@HOOKS.register_module()
class SpeedMonitorHook(Hook):
    """Log images a second, and the share of time spent waiting for data.

    Measured when something is logged, from the ``time`` and ``data_time`` of
    mmengine's ``IterTimerHook``, over as many steps as ``log_processor``
    averages these two:

    - ``images_per_second``: of all processes; left out if the config names
      no ``train_dataloader.batch_size``.
    - ``data_wait_share``: in percent.
    """

    # Before the LoggerHook.
    priority = 'NORMAL'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *_, **__
    ) -> None:
        """Measure, if something is logged."""
        hub, names = runner.message_hub, ('train/time', 'train/data_time')
        measured = all(name in hub.log_scalars for name in names)
        if not measured or not is_logged(self, runner, batch_idx):
            return
        window = runner.log_processor.window_size
        time, data_time = (hub.get_scalar(n).mean(window) for n in names)
        hub.update_scalar('train/data_wait_share', 100 * data_time / time)
        batch_size = global_batch_size(runner)
        if batch_size:
            hub.update_scalar('train/images_per_second', batch_size / time)


def is_logged(hook: Hook, runner: Runner, batch_idx: int) -> bool:
    """Whether values of this step are logged, or the epoch ends.

    Args:
        hook (Hook): Any hook, for mmengine's counting.
        runner (Runner): The runner, before or after its ``train_step``.
        batch_idx (int): Index of the batch in its epoch.

    Returns:
        bool: What the ``LoggerHook`` of the run decides.
    """
    intervals = [
        other.interval
        for other in runner.hooks
        if isinstance(other, LoggerHook)
    ]
    return (
        any(hook.every_n_inner_iters(batch_idx, n) for n in intervals)
        or any(hook.every_n_train_iters(runner, n) for n in intervals)
        or hook.end_of_epoch(runner.train_dataloader, batch_idx)
        or hook.is_last_train_iter(runner)
    )


def global_batch_size(runner: Runner) -> int:
    """Training images a step, of all processes; 0 if the config names none.

    Args:
        runner (Runner): The runner.
    """
    # A loader of indices, as of images on the device, says nothing of it.
    batch_size = part(runner.cfg, 'train_dataloader').get('batch_size')
    return (batch_size or 0) * get_world_size()
