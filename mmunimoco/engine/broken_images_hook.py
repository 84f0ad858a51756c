"""Count and list the broken images that ``skip_broken`` replaces."""

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
    """Count and list the broken images that ``skip_broken`` replaces.

    Counted are different files, over all workers, processes and restarts of a
    run. Each process stops before the step in which it meets one too many;
    at the end of each epoch all of them know all files, list them in the log
    and stop if there are too many. It does nothing where ``skip_broken`` of
    the training data is 0.
    """

    def __init__(self) -> None:
        self.limit = 0
        self.found: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        """Go on counting where a resumed run was.

        Args:
            runner (Runner): The runner.
        """
        self.limit = skip_limit(runner.train_dataloader.dataset)
        self.found = dict(runner.message_hub.get_info(_FOUND) or {})

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Take in what the samples of a batch stand for.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Number of the batch.
            data_batch (dict, optional): The batch.

        Raises:
            BrokenImageError: If this process has met too many.
        """
        if not self.limit:
            return
        new = broken_files(data_batch)
        if not new.keys() <= self.found.keys():
            self._add(runner, new)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """In loops that count steps: the end of an epoch."""
        counts_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if not counts_epochs and self.every_n_train_iters(
            runner, len(runner.train_dataloader)
        ):
            self.after_train_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Bring together what all processes have met, and list it.

        Args:
            runner (Runner): The runner.

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
                f'skip_broken: {len(self.found)} broken files, of at most '
                f'{self.limit}, are replaced by others up to step '
                f'{runner.iter}:{list_broken(self.found)}'
            )

    def before_collecting_state(self, runner: Runner) -> None:
        """Have the main process save what the others have met, too.

        A run that goes on within the epoch does not load those images again.
        ``ExactCheckpointHook`` calls this on all processes.

        Args:
            runner (Runner): The runner.
        """
        if self.limit:
            for found in all_gather_object(self.found):
                self.found.update(found)
            runner.message_hub.update_info(_FOUND, dict(self.found))

    def _add(self, runner: Runner, found: dict[str, str]) -> None:
        self.found.update(found)
        check_broken(self.found, self.limit)
        # A copy of its own: the hub is written to checkpoints.
        runner.message_hub.update_info(_FOUND, dict(self.found))
