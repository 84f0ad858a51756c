"""Skip steps whose loss or gradients are not finite; stop if they go on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather, all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from mmunimoco.utils.checkpoint import bare_model, shorten

from .finite_steps import GradientGuard, RunningStatistics, guard_optimizers

IMAGES = 'non_finite_images.txt'


@dataclass
class _Step:
    """A step of which the host does not know yet whether it was finite."""

    epoch: int
    iteration: int
    samples: Sequence
    bad: Tensor  # (2,) bool: loss of this process, gradients of all
    is_update: bool  # else gradients are accumulated, and not yet known

    def describe(self, images: dict[int, list[str]]) -> str:
        """Iteration and images, by rank."""
        parts = []
        for rank, names in images.items():
            listed = shorten(names, 4) or 'unknown'  # the file lists all
            parts.append(f'images of rank {rank}: {listed}')
        return (
            f'iteration {self.iteration + 1} in epoch {self.epoch + 1} '
            f'({"; ".join(parts)})'
        )


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Skip steps that are not finite, warn, and stop if too many do.

    A step whose gradients are infinite or NaN leaves nothing behind: weights
    and optimizer are kept (see :class:`GradientGuard`), running statistics of
    BN are restored, and ``UniMoCoHead`` does not enqueue such keys. With a
    ``GradScaler`` the optimizer is left to it: overflowing gradients are part
    of its search for a scale and are not counted, a loss that is not finite
    is.

    Whether a step was finite is decided on the device and read every
    ``interval`` steps, before a validation and before a checkpoint, so the
    host does not wait for each step. All processes read it together and
    agree. The images of such steps are listed in ``non_finite_images.txt`` in
    the work folder. A resumed run starts counting from 0.

    Args:
        max_skipped (int): How many steps in a row may be skipped before the
            run stops. Defaults to 20.
        interval (int): Steps between two reads. Defaults to 50.

    Raises:
        ValueError: If an argument is out of range.
    """

    # Before anything is logged, evaluated or saved.
    priority = 'ABOVE_NORMAL'

    def __init__(self, max_skipped: int = 20, interval: int = 50) -> None:
        if max_skipped < 0:
            raise ValueError(
                'NonFiniteLossHook.max_skipped must be 0 or more, got '
                f'{max_skipped}'
            )
        if interval < 1:
            raise ValueError(
                f'NonFiniteLossHook.interval must be 1 or more, got {interval}'
            )
        self.max_skipped = max_skipped
        self.interval = interval
        self._waiting: list[_Step] = []
        self._guards: list[GradientGuard] = []
        self._statistics: RunningStatistics | None = None
        self._in_a_row = 0
        self._first = ''
        self._good_checkpoint: str | None = None

    def before_train(self, runner: Runner) -> None:
        """Guard the optimizers, and start counting."""
        self._remove_guards()
        self._guards = guard_optimizers(runner.optim_wrapper)
        self._statistics = None
        self._waiting, self._in_a_row = [], 0

    def before_train_iter(self, runner: Runner, *_, **__) -> None:
        """Back up the statistics, once the whole checkpoint is restored."""
        if self._statistics is None:
            self._statistics = RunningStatistics(bare_model(runner.model))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Record whether the step was finite; read the record if it is due.

        Raises:
            FloatingPointError: If too many steps in a row were skipped.
        """
        self._record(runner, data_batch, (outputs or {}).get('loss'))
        if self._is_due(runner, batch_idx):
            self.settle(runner)

    def before_val(self, runner: Runner) -> None:
        """Read the record: validation uses the running statistics."""
        self.settle(runner)

    def before_collecting_state(self, runner: Runner) -> None:
        """Read the record: ``ExactCheckpointHook`` is about to save."""
        self.settle(runner)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizers as they were."""
        self._remove_guards()

    def settle(self, runner: Runner) -> None:
        """Read the record of the steps since the last read; collective.

        Raises:
            FloatingPointError: If too many steps in a row were skipped.
        """
        if not self._waiting:
            return
        steps, self._waiting = self._waiting, []
        # (processes, steps, 2), read at once.
        mine = torch.stack([step.bad for step in steps]).to(torch.uint8)
        bad = torch.stack(all_gather(mine)).bool().cpu()
        if not bad.any():
            if any(step.is_update for step in steps):
                self._in_a_row = 0
        else:
            self._statistics.repair()
            self._count_skipped(runner, steps, bad)
        self._statistics.back_up()

    def _count_skipped(
        self, runner: Runner, steps: list[_Step], bad: Tensor
    ) -> None:
        """Count skipped steps, list their images, then warn or stop."""
        list_path = Path(runner.work_dir) / IMAGES
        texts = []
        images = _images_of(steps, bad)
        is_bad = bad.any(dim=2).any(dim=0).tolist()
        for step, flag, by_rank in zip(steps, is_bad, images, strict=True):
            if not flag:
                if step.is_update:
                    self._in_a_row = 0
                continue
            texts.append(step.describe(by_rank))
            if is_main_process():
                _append_images(list_path, step, by_rank)
            if self._in_a_row == 0:
                self._first = texts[-1]
                hub = runner.message_hub
                self._good_checkpoint = hub.get_info('last_ckpt')
            self._in_a_row += 1
            if self._in_a_row > self.max_skipped:
                raise FloatingPointError(self._reason(step, list_path))
        print_log(
            f'{len(texts)} of the last {len(steps)} steps were skipped: loss '
            f'or gradients were not finite. The first was {texts[0]}. The run '
            f'stops after {self.max_skipped + 1} in a row; all images are '
            f'listed in {list_path}.',
            logger='current',
            level=logging.WARNING,
        )

    def _record(
        self, runner: Runner, data_batch: Any, loss: Tensor | None
    ) -> None:
        """Remember a step, without reading from the device."""
        flags = [guard.take() for guard in self._guards]
        flags = [flag for flag in flags if flag is not None]
        if not isinstance(loss, Tensor):
            return
        bad_loss = ~loss.detach().isfinite().all()
        finite = torch.zeros_like(bad_loss)
        bad = torch.stack(
            [bad_loss, torch.stack(flags).any() if flags else finite]
        )
        samples = ()
        if isinstance(data_batch, dict):
            samples = data_batch.get('data_samples') or ()
        is_update = bool(flags) or not self._guards
        self._waiting.append(
            _Step(runner.epoch, runner.iter, samples, bad, is_update)
        )

    def _is_due(self, runner: Runner, batch_idx: int) -> bool:
        # mmengine's own CheckpointHook announces no save in advance.
        saving = [
            hook.interval
            for hook in runner.hooks
            if isinstance(hook, CheckpointHook) and not hook.by_epoch
        ]
        return (
            any(
                self.every_n_train_iters(runner, n)
                for n in (self.interval, *saving)
            )
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or self.is_last_train_iter(runner)
        )

    def _reason(self, step: _Step, list_path: Path) -> str:
        good = 'there is no checkpoint from before'
        if self._good_checkpoint is not None:
            good = f'the last good checkpoint is {self._good_checkpoint}'
        return (
            f'loss or gradients were not finite in {self._in_a_row} steps in '
            f'a row, up to iteration {step.iteration + 1}; none of them '
            f'changed the weights, {good}. The first was {self._first}; all '
            f'images are listed in {list_path}. Check these, then try a lower '
            'optim_wrapper.optimizer.lr, clip_grad, or bfloat16 instead of '
            'float16'
        )

    def _remove_guards(self) -> None:
        for guard in self._guards:
            guard.remove()
        self._guards = []


def _images_of(steps: list[_Step], bad: Tensor) -> list[dict[int, list[str]]]:
    """Images of each step, by the ranks that caused it; a collective call.

    Those are the ranks with a bad loss, or all if only gradients were bad.
    ``bad`` is (processes, steps, 2) bool, on the CPU.
    """
    losses, any_bad = bad[..., 0], bad.any(dim=2)
    causes = torch.where(losses.any(dim=0), losses, any_bad)
    mine = [
        [_name(sample) for sample in step.samples] if cause.any() else []
        for step, cause in zip(steps, causes.T, strict=True)
    ]
    of_ranks = all_gather_object(mine)
    return [
        {int(rank): of_ranks[rank][i] for rank in cause.nonzero()[:, 0]}
        for i, cause in enumerate(causes.T)
    ]


def _name(sample: Any) -> str:
    path = sample.get('img_path')
    return f'sample {sample.get("sample_idx")}' if path is None else str(path)


def _append_images(
    path: Path, step: _Step, images: dict[int, list[str]]
) -> None:
    """Append iteration, rank and image to the file, one image a line."""
    with path.open('a', encoding='utf-8') as file:
        for rank, names in images.items():
            for name in names:
                file.write(f'{step.iteration + 1}\t{rank}\t{name}\n')
