"""Recompute activations in the backward pass in place of keeping them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@HOOKS.register_module()
class GradientCheckpointHook(Hook):
    """Recompute activations in the backward pass in place of keeping them.

    A third more time for a fraction of the memory. Unlike ``with_cp`` of
    mmpretrain's ResNet it does not count batch statistics twice, so results
    stay the same, and it works for any backbone. With
    :class:`CompileEncodersHook` the blocks of the query encoder are not
    compiled; those of the key encoder are.

    Args:
        blocks (Sequence[str]): Class names of the modules of the backbone
            whose insides are recomputed. Defaults to the blocks of ResNet and
            ViT.

    Raises:
        ValueError: If ``blocks`` is not a sequence of names.
    """

    def __init__(
        self,
        blocks: Sequence[str] = (
            'BasicBlock',
            'Bottleneck',
            'TransformerEncoderLayer',
        ),
    ) -> None:
        if isinstance(blocks, str):
            raise ValueError(
                'GradientCheckpointHook.blocks must be a list of class names, '
                f'but got {blocks!r}'
            )
        self.blocks = blocks

    def before_run(self, runner: Runner) -> None:
        """Wrap the blocks of the query encoder; the keys have no backward.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If the backbone has no such block.
        """
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        blocks = [
            module
            for module in model.backbone.modules()
            if type(module).__name__ in self.blocks
        ]
        if not blocks:
            raise ValueError(
                'GradientCheckpointHook found none of '
                f'{", ".join(self.blocks)} in the backbone, a '
                f'{type(model.backbone).__name__}. Name its blocks in `blocks`'
            )
        for block in blocks:
            block.forward = partial(_checkpointed, block, block.forward)


@torch.compiler.disable
def _checkpointed(
    block: nn.Module, forward: Callable, *args: Any, **kwargs: Any
) -> Any:
    """Forward that keeps its inputs alone for the backward pass."""
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(block)),
        **kwargs,
    )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Let batch norms write to copies of their running statistics."""
    norms = [x for x in block.modules() if isinstance(x, _BatchNorm)]
    kept = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
