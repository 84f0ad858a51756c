"""Keep what is not finite out of weights and running statistics."""

import logging
from collections.abc import Sequence
from functools import wraps
from types import MethodType
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer


class GradientGuard:
    """Skips the steps of an optimizer whose gradients are not finite.

    Gradients on a CPU, where the host knows them, and torch's fused
    optimizers on a GPU, which decide on the device: such a step does nothing,
    no weight, momentum buffer or step count changes. Any other optimizer on a
    GPU gets gradients of zero, because more would require the host to wait:
    momentum and weight decay still move the weights.

    Gradients of several processes are averaged before, so all decide alike.

    Args:
        optimizer (Optimizer): An optimizer of torch.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self._skipped = optimizer, None
        step, self._active = optimizer.step, True

        # Not a step hook: torch 2.1 calls none once it has compiled anything.
        @wraps(step)
        def guarded_step(_: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if not self._active:
                return step(*args, **kwargs)
            self._before_step()
            try:
                return step(*args, **kwargs)
            finally:
                if hasattr(optimizer, 'found_inf'):
                    del optimizer.found_inf

        optimizer.step = MethodType(guarded_step, optimizer)

    def take(self) -> Tensor | None:
        """Whether the last step was skipped: scalar bool, on the device.

        None if there was no step since the last call.
        """
        skipped, self._skipped = self._skipped, None
        return skipped

    def remove(self) -> None:
        """Stop guarding the optimizer."""
        self._active = False

    def _before_step(self) -> None:
        optimizer = self._optimizer
        parameters = [
            parameter
            for group in optimizer.param_groups
            for parameter in group['params']
            if parameter.grad is not None and parameter.numel()
        ]
        if not parameters:
            return
        gradients = [parameter.grad for parameter in parameters]
        bad = any_not_finite(gradients)
        self._skipped = bad
        if bad.device.type == 'cpu':
            if bad:
                for parameter in parameters:
                    parameter.grad = None
        elif optimizer.defaults.get('fused'):
            # The flag by which torch's GradScaler has a step skipped.
            optimizer.found_inf = bad.float()
        else:
            for gradient in gradients:
                gradient.masked_fill_(bad, 0)


def any_not_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether any entry of any tensor is infinite or NaN: scalar bool.

    There must be at least one tensor, and all on the same device.
    """
    if tensors[0].device.type == 'cpu':
        # A sum is the cheapest there; one that overflows is checked exactly.
        suspects = [x for x in tensors if not x.sum().isfinite()]
        return torch.tensor(not all(x.isfinite().all() for x in suspects))
    by_dtype = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor.detach())
    # Maximum norms are finite if all entries are, and cannot overflow.
    finite = [
        torch.stack(torch._foreach_norm(group, float('inf'))).isfinite().all()
        for group in by_dtype.values()
    ]
    return ~torch.stack(finite).all()


def guard_optimizers(
    wrapper: OptimWrapper | OptimWrapperDict,
) -> list[GradientGuard]:
    """Guard all optimizers of a run.

    Those that an enabled ``GradScaler`` handles get no guard: it looks at the
    gradients itself, and skips steps as part of its search for a scale.
    """
    if isinstance(wrapper, OptimWrapperDict):
        return [x for one in wrapper.values() for x in guard_optimizers(one)]
    scaler = getattr(wrapper, 'loss_scaler', None)
    if scaler is not None and scaler.is_enabled():
        return []
    if not isinstance(wrapper.optimizer, Optimizer):
        print_log(
            f'{type(wrapper.optimizer).__name__} is not an optimizer of '
            'torch: its steps are made even if gradients are not finite.',
            logger='current',
            level=logging.WARNING,
        )
        return []
    return [GradientGuard(wrapper.optimizer)]


class RunningStatistics:
    """The running mean and variance of a model's BN layers, with a backup.

    Training does not read them, so a repair can wait until they are validated
    or saved.

    Args:
        model (nn.Module): The model; its present values are the first backup.
    """

    def __init__(self, model: nn.Module) -> None:
        self._live = [
            buffer
            for module in model.modules()
            if isinstance(module, _NormBase)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        self.back_up()

    @torch.no_grad()
    def back_up(self) -> None:
        """Copy the present values."""
        self._backup = [buffer.clone() for buffer in self._live]

    @torch.no_grad()
    def repair(self) -> None:
        """Replace values that are not finite by those of the backup."""
        for live, backup in zip(self._live, self._backup, strict=True):
            live.copy_(torch.where(live.isfinite(), live, backup))
