"""Warn when all features become the same."""

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from mmunimoco.models.unimoco_head import UniMoCoHead
from mmunimoco.utils.checkpoint import bare_model

from .runtime_info import is_logged


@HOOKS.register_module()
class CollapseHook(Hook):
    """Log the spread of the keys in the queue, and warn if it vanishes.

    The log value ``feature_std`` is the standard deviation of each feature
    over the queue, averaged over the C features, times sqrt(C): about 1 for
    keys spread over the whole sphere, 0 for identical keys (as in SimSiam,
    arXiv 2011.10566, figure 2). It is measured whenever something is logged.
    The random keys that a queue starts with count until they are overwritten.

    It detects a collapse to one point, and keys that never left one; it says
    little about a collapse to a few dimensions.

    Args:
        threshold (float): Warn below this value, once until it is above
            again. Defaults to 0.02.

    Raises:
        ValueError: If the threshold is not in [0, 1).
    """

    # Before the LoggerHook.
    priority = 'NORMAL'

    def __init__(self, threshold: float = 0.02) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(
                f'CollapseHook.threshold must be in [0, 1), got {threshold}'
            )
        self.threshold = threshold
        self._warned = False

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Measure, if something is logged."""
        if not is_logged(self, runner, batch_idx):
            return
        head = getattr(bare_model(runner.model), 'head', None)
        # One key has no spread.
        if not isinstance(head, UniMoCoHead) or head.queue_len < 2:
            return
        spread = feature_std(head.queue).item()
        runner.message_hub.update_scalar('train/feature_std', spread)
        if spread >= self.threshold:
            self._warned = False
        elif not self._warned:
            self._warned = True
            print_log(
                f'The features collapse: feature_std is {spread:.2g} in '
                f'iteration {runner.iter + 1}, below {self.threshold:g}, so '
                'all images look nearly the same to the model. Check '
                'optim_wrapper.optimizer.lr (too high?), model.momentum (too '
                'large?), model.head.temperature (too high?), the images '
                'after augmentation (all alike?), and whether loss and '
                'top1_unlabeled still change.',
                logger='current',
                level=logging.WARNING,
            )


def feature_std(features: Tensor) -> Tensor:
    """The spread of L2-normalised features, relative to the possible one.

    Args:
        features (Tensor): Shape (N, C), float, N >= 1.

    Returns:
        Tensor: Scalar: standard deviation over the N rows, mean over the C
        columns, times sqrt(C). At most 1.
    """
    spread = features.detach().float().std(dim=0, correction=0)
    return spread.mean() * features.shape[1] ** 0.5
