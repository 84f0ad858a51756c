"""Count and list the broken images that are skipped in training."""

from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from mmunimoco.datasets.skip_broken import (
    broken_files,
    check_broken,
    list_broken,
    skip_limit,
)

_FOUND = 'broken_files'  # in the message hub, and so in each checkpoint


@HOOKS.register_module()
class BrokenImagesHook(Hook):
    """Count and list the broken images that the training data skips.

    Different files are counted over all workers, processes and restarts of a
    run. A process stops before the step in which it meets one too many; at
    the end of each epoch all processes learn of all files, log them, and stop
    if there are too many. Does nothing if the training data skips none.
    """

    def __init__(self) -> None:
        self.limit = 0
        self.found: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        """Continue the count of a resumed run."""
        self.limit = skip_limit(runner.train_dataloader.dataset)
        self.found = dict(runner.message_hub.get_info(_FOUND) or {})

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Count the files that the samples of the batch replace.

        Raises:
            BrokenImageError: If this process has met too many.
        """
        if not self.limit:
            return
        new = broken_files(data_batch)
        if not new.keys() <= self.found.keys():
            self._add(runner, new)

    def after_train_iter(self, runner: Runner, *_, **__) -> None:
        """In loops that count iterations: detect the end of an epoch."""
        counts_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if not counts_epochs and self.every_n_train_iters(
            runner, len(runner.train_dataloader)
        ):
            self.after_train_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Gather what all processes have met, and log it.

        Raises:
            BrokenImageError: If it is too many.
        """
        if not self.limit:
            return
        for found in all_gather_object(self.found):
            self._add(runner, found)
        if self.found:
            # The step, because mmengine's logger drops repeated warnings.
            runner.logger.warning(
                f'{len(self.found)} broken files, of at most {self.limit}, '
                f'are replaced by others up to step {runner.iter}:'
                f'{list_broken(self.found)}'
            )

    def before_collecting_state(self, runner: Runner) -> None:
        """Let the main process save what the others have met, too.

        A run that resumes within the epoch does not load those images again.
        ``ExactCheckpointHook`` calls this on all processes.
        """
        if self.limit:
            for found in all_gather_object(self.found):
                self.found.update(found)
            runner.message_hub.update_info(_FOUND, dict(self.found))

    def _add(self, runner: Runner, found: dict[str, str]) -> None:
        self.found.update(found)
        check_broken(self.found, self.limit)
        # A copy: what the hub holds is written to checkpoints.
        runner.message_hub.update_info(_FOUND, dict(self.found))
