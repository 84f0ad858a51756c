"""Say whether pre-training learns, and warn when it does not."""

import logging
import math
from numbers import Real

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from mmunimoco.models.unimoco_head import UniMoCoHead
from mmunimoco.utils.checkpoint import bare_model

from .exact.process_state import preserved_random_state
from .knn_loop import KNNValLoop
from .logs import global_batch_size, is_logged

BASELINE = 'knn_before_training'  # in the message hub
# Points of kNN; with 2 000 test images a standard deviation is one.
_CLEAR_GAIN = 3.0
_ALL = 99.9  # of 100 % nothing can be better
_SPREAD = (
    " model.head.loss.own_key_weight='balanced' spreads the features sooner."
)


@HOOKS.register_module()
class CollapseHook(Hook):
    """Log the spread of the keys, and say whether the features get better.

    Before a new run with ``KNNValLoop``, kNN is measured once as the baseline
    (step 0 of the log). After each validation one line says whether the run

    - learns;
    - learns by kNN, though all features still lie close together: its mean
      loss since the last validation is less than ``min_gain`` below
      ``UniMoCoHead.collapsed_loss``, that of features which are all the same;
    - is stuck: the same, and kNN is not three points better than at the
      first validation (the statistics of batch norm alone may better what was
      measured before training); or
    - has features that are no better, by kNN, than before training.

    The latter two are warnings that name what to try, and are not given where
    kNN is at 100 %. Steps in which the queue still held random keys, which are
    easy to tell apart, do not count.

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
        min_gain (float): See above; in nats. Defaults to 0.25.
        baseline (bool): Whether to measure the baseline. Defaults to True.

    Raises:
        ValueError: If the threshold is not in [0, 1), or ``min_gain`` is
            negative.
    """

    # Before the LoggerHook.
    priority = 'NORMAL'

    def __init__(
        self,
        threshold: float = 0.02,
        min_gain: float = 0.25,
        baseline: bool = True,
    ) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(
                f'CollapseHook.threshold must be in [0, 1), got {threshold}'
            )
        if min_gain < 0:
            raise ValueError(
                f'CollapseHook.min_gain must not be negative, got {min_gain}'
            )
        self.threshold, self.min_gain = threshold, min_gain
        self.baseline = baseline
        self._warned = False
        self._validated_at = 0

    def before_train(self, runner: Runner) -> None:
        """Count the steps of the first verdict from here."""
        self._validated_at = runner.iter

    def before_train_epoch(self, runner: Runner) -> None:
        """Measure kNN before the first step of a new run."""
        loop = runner.val_loop
        if (
            not self.baseline
            or runner.iter
            or not isinstance(loop, KNNValLoop)
        ):
            return
        with preserved_random_state():
            metrics = _numbers(loop.measure(call_hooks=False))
        # Kept in checkpoints, for the verdicts of a resumed run.
        runner.message_hub.update_info(BASELINE, metrics)
        runner.visualizer.add_scalars(
            metrics, step=0, file_path=f'{runner.timestamp}.json'
        )
        runner.logger.info(f'Before the first step: {_as_text(metrics)}')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *_, **__
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

    def after_val_epoch(
        self, runner: Runner, metrics: dict | None = None
    ) -> None:
        """Say whether the run learns."""
        steps = runner.iter - self._validated_at
        self._validated_at = runner.iter
        head = getattr(bare_model(runner.model), 'head', None)
        if steps < 1 or not isinstance(head, UniMoCoHead):
            return
        hub = runner.message_hub
        batch_size = global_batch_size(runner)
        to_fill = math.ceil(head.queue_len / batch_size) if batch_size else 0
        random = to_fill - (runner.iter - steps)
        steps -= max(random, 0)
        if steps < 1:
            print_log(
                'No verdict yet: the queue still holds random keys.', 'current'
            )
            return
        means = {
            name: _mean_of_finite(hub.get_scalar(f'train/{name}'), steps)
            for name in ('loss', 'positive_similarity', 'negative_similarity')
            if f'train/{name}' in hub.log_scalars
        }
        if not math.isfinite(means.get('loss', math.nan)):
            return
        metrics = _numbers(metrics or {})
        first = {
            name: hub.get_scalar(f'val/{name}').data[0][0]
            for name in metrics
            if f'val/{name}' in hub.log_scalars
        }
        level, text = verdict(
            means,
            head.collapsed_loss(num_steps=steps, batch_size=batch_size).item(),
            self.min_gain,
            metrics,
            hub.get_info(BASELINE) or {},
            first,
            _SPREAD if _is_unweighted(head.loss_module) else '',
        )
        print_log(text, logger='current', level=level)


def verdict(
    means: dict[str, float],
    collapsed: float,
    min_gain: float,
    metrics: dict[str, float],
    baseline: dict[str, float],
    first: dict[str, float],
    remedy: str = _SPREAD,
) -> tuple[int, str]:
    """Judge a run since its last validation.

    Args:
        means (dict[str, float]): Mean ``loss`` and, if logged, similarities.
        collapsed (float): The loss of features that are all the same.
        min_gain (float): Least distance of the loss from that.
        metrics (dict[str, float]): Of kNN now.
        baseline (dict[str, float]): Of kNN before training; may be empty.
        first (dict[str, float]): Of kNN at the first validation.
        remedy (str): What to try if features lie close together.

    Returns:
        tuple[int, str]: Level of logging, and text.
    """
    facts = f'loss {means["loss"]:.3f}, {collapsed:.3f} if all features were '
    facts += 'the same'
    if 'positive_similarity' in means:
        facts += (
            f'; similarity of positives {means["positive_similarity"]:.3f}, '
            f'of negatives {means["negative_similarity"]:.3f}'
        )
    shared = [name for name in metrics if name in baseline]
    for name in shared[:1]:
        facts += (
            f'; {name} {metrics[name]:.1f}, before training '
            f'{baseline[name]:.1f}'
        )
    if collapsed - means['loss'] < min_gain:
        start = first.get(shared[0]) if shared else None
        if start is not None and metrics[shared[0]] - start >= _CLEAR_GAIN:
            return logging.INFO, (
                f'Learning, with features that lie close together ({facts}). '
                'With labels this lasts until classes are told apart.'
                f'{remedy}'
            )
        if shared and metrics[shared[0]] >= _ALL:
            return logging.INFO, (
                'No verdict: features lie close together, but by kNN nothing '
                f'can be better ({facts}).{remedy}'
            )
        return logging.WARNING, (
            'STUCK: the loss is hardly lower than for features that are all '
            f'the same ({facts}). With labels this can last for the first '
            f'epochs.{remedy} If it goes on without labels, try '
            'model.momentum=0.01, a smaller model.head.queue_len (well below '
            'the number of images), a smaller model.head.temperature, a '
            'lower learning rate, and look at the augmented images.'
        )
    if shared and metrics[shared[0]] <= min(baseline[shared[0]], _ALL):
        return logging.WARNING, (
            'NO BETTER than before training, by kNN, though the loss falls '
            f'({facts}). If it goes on, check that labels of training and '
            'validation agree, that augmentation leaves what distinguishes '
            'the classes, and the learning rate.'
        )
    return logging.INFO, f'Learning ({facts}).'


def _mean_of_finite(history: HistoryBuffer, steps: int) -> float:
    """Mean over the last steps but those that were skipped."""
    values, counts = (column[-steps:] for column in history.data)
    finite = np.isfinite(values)
    if not finite.any():
        return math.nan
    return float(values[finite].sum() / counts[finite].sum())


def _is_unweighted(loss: nn.Module) -> bool:
    """Whether own and other positives count the same."""
    has_others = getattr(loss, 'uses_labels', False)
    return has_others and getattr(loss, 'own_key_weight', None) == 1


def _numbers(metrics: dict) -> dict[str, float]:
    """Leave out results such as a confusion matrix."""
    return {k: v for k, v in metrics.items() if isinstance(v, Real)}


def _as_text(metrics: dict[str, float]) -> str:
    return ', '.join(f'{name} {value:.2f}' for name, value in metrics.items())


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
