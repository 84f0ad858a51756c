"""Compile query and key encoder with torch.compile."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import nn


@HOOKS.register_module()
class CompileEncodersHook(Hook):
    """Compile query and key encoder with ``torch.compile``.

    Backbones and necks alone: loss, queues and collectives stay as they are,
    where mmengine's ``compile`` option would take the whole step, and break
    it into pieces at each collective. Results change by rounding. Names in
    checkpoints do not change.

    Args:
        **options: Of ``torch.compile``, such as ``mode`` or ``backend``.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def before_run(self, runner: Runner) -> None:
        """Compile; what is slow follows at the first step.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If the model has no momentum encoder.
        """
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        if not hasattr(model, 'encoder_k'):
            raise ValueError(
                'CompileEncodersHook compiles the encoders of UniMoCo, but '
                f'the model is a {type(model).__name__}. Take the hook out of '
                'custom_hooks, or use `compile=True` of mmengine'
            )
        for module in (model.backbone, model.neck, *model.encoder_k.module):
            self._compile(module)

    def _compile(self, module: nn.Module) -> None:
        # The method, not the module, whose parameters would be renamed.
        module.forward = torch.compile(module.forward, **self.options)
