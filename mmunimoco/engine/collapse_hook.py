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

from .delayed_log_hook import is_logged


@HOOKS.register_module()
class CollapseHook(Hook):
    """Log how much the keys of the queue differ, and warn when they do not.

    The log value ``feature_std`` is the standard deviation of each feature
    over the queue, mean over the C features, times the square root of C:
    about 1 for keys spread over the whole sphere, 0 for keys that are all the
    same (as in SimSiam, arXiv 2011.10566, figure 2). It is measured whenever
    something is logged. The random keys that a queue starts with count until
    they are overwritten.

    That finds a collapse to one point, and keys that never left one. Of a
    collapse to a few dimensions it tells little.

    Args:
        threshold (float): Warn below this, once until it is above again.
            Defaults to 0.02.

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
        """Measure, if something is logged.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the batch in its epoch.
            data_batch (Any): The batch.
            outputs (dict, optional): Log values.
        """
        if not is_logged(self, runner, batch_idx):
            return
        head = getattr(bare_model(runner.model), 'head', None)
        # One key does not differ from itself.
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
                'all images look nearly the same to the model. Look at '
                'optim_wrapper.optimizer.lr (too high?), model.momentum (too '
                'large?), model.head.temperature (too high?), the images '
                'after augmentation (all alike?), and whether loss and '
                'top1_unlabeled still change.',
                logger='current',
                level=logging.WARNING,
            )


def feature_std(features: Tensor) -> Tensor:
    """How much L2-normalised features differ, as a share of what is possible.

    Args:
        features (Tensor): Shape (N, C), float, N >= 1.

    Returns:
        Tensor: Scalar: standard deviation over the N rows, mean over the C
        columns, times the square root of C. At most 1.
    """
    spread = features.detach().float().std(dim=0, correction=0)
    return spread.mean() * features.shape[1] ** 0.5
