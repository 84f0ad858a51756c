"""Hooks that the demo adds to the runners of a user's own configs."""

import time

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmunimoco.utils.progress import Reporter

from .interrupt import SafeInterrupt


class ClockHook(Hook):
    """Measure the seconds of training, over interruptions.

    They are kept in the message hub and so in each checkpoint; time that an
    interruption threw away does not count.
    """

    KEY = 'demo_seconds'

    def before_train(self, runner: Runner) -> None:
        """Go on from what the resumed checkpoint says."""
        self._before = self.read(runner)
        self._start = time.monotonic()

    def after_train_epoch(self, runner: Runner) -> None:
        """Note the time; the checkpoint is written after this."""
        self._note(runner)

    def after_train(self, runner: Runner) -> None:
        """Count the last validation too."""
        self._note(runner)

    @classmethod
    def read(cls, runner: Runner) -> float:
        """Seconds of training so far."""
        return runner.message_hub.runtime_info.get(cls.KEY, 0.0)

    def _note(self, runner: Runner) -> None:
        seconds = self._before + time.monotonic() - self._start
        runner.message_hub.update_info(self.KEY, seconds)


class ProgressHook(Hook):
    """Report progress, and stop between two steps when asked to.

    To be asked, enter the context ``interrupt``.

    Args:
        reporter (Reporter): Who is told.
        first (float): Progress of the stage at which the run begins.
            Defaults to 0.0.
        last (float): And at which it ends. Defaults to 1.0.
    """

    # After CheckpointHook: what is reported as done is done.
    priority = 'LOWEST'

    def __init__(
        self,
        reporter: Reporter,
        first: float = 0.0,
        last: float = 1.0,
    ) -> None:
        self.reporter = reporter
        self.interrupt = SafeInterrupt()
        self.first = first
        self.last = last
        self._score = ''

    def after_train_iter(self, runner: Runner, batch_idx: int, **_) -> None:
        """Report the epoch."""
        done = (runner.iter + 1) / runner.max_iters
        self._report(done, runner.epoch + 1, runner)
        self.interrupt.check()

    def after_train_epoch(self, runner: Runner) -> None:
        """Report the loss of the epoch."""
        done = (runner.epoch + 1) / runner.max_epochs
        self._report(done, runner.epoch + 1, runner, milestone=True)

    def after_val_iter(self, runner: Runner, **_) -> None:
        """Stop if asked to."""
        self.interrupt.check()

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Remember the score, to show it beside the loss."""
        self._score = ''.join(
            f', {name.replace("/", " ")} {value:.1f} %'
            for name, value in metrics.items()
            if name.endswith('top1')
        )

    def after_test_iter(self, runner: Runner, **_) -> None:
        """Stop if asked to."""
        self.interrupt.check()

    def _report(
        self, done: float, epoch: int, runner: Runner, milestone: bool = False
    ) -> None:
        history = runner.message_hub.log_scalars.get('train/loss')
        loss = '' if history is None else f', loss {history.mean(20):.2f}'
        self.reporter.update(
            self.first + done * (self.last - self.first),
            f'epoch {epoch}/{runner.max_epochs}{loss}{self._score}',
            milestone,
        )
