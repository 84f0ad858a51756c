"""Build optimizers whose step is one kernel."""

from inspect import signature

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmpretrain.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIMIZERS,
)
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FusedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Build torch's fused optimizer where there is one.

    The default constructor with ``fused=True`` for the optimizer, if the
    installed torch has it fused (SGD since 2.3, Adam and AdamW since 2.0)
    and the model is on a GPU; otherwise the optimizer as it is configured,
    with a line in the log. ``fused`` in the config counts first. Results
    change by rounding.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build optimizer and wrapper for a model on its device."""
        if 'fused' not in self.optimizer_cfg:
            reason = _why_not_fused(self.optimizer_cfg['type'], model)
            if reason is None:
                self.optimizer_cfg = {**self.optimizer_cfg, 'fused': True}
            else:
                print_log(f'The optimizer is not fused: {reason}', 'current')
        return super().__call__(model)


def _why_not_fused(kind: str | type, model: nn.Module) -> str | None:
    """Why an optimizer cannot be fused, or None if it can."""
    optimizer = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
    if 'fused' not in signature(optimizer).parameters:
        return f'torch {torch.__version__} has no fused {optimizer.__name__}'
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices != {'cuda'}:
        return f'the model is on {", ".join(sorted(devices))}'
    return None
