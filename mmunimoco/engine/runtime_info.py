"""Read log values from the device when they are logged, not every step."""

from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class DelayedRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, without a device synchronisation a step.

    mmengine reads loss and log values every iteration, so the host waits for
    the GPU and the GPU then for the next step to be queued. This hook keeps
    them on the device until something is logged or saved or the epoch ends,
    and reads all of them at once. What is logged is the same. It replaces
    mmengine's::

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


def is_logged(hook: Hook, runner: Runner, batch_idx: int) -> bool:
    """Whether values of this step are logged, or the epoch ends.

    Args:
        hook (Hook): Any hook, for mmengine's counting.
        runner (Runner): The runner, in ``after_train_iter``.
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
