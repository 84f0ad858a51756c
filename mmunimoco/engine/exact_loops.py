"""Training loops that go on exactly where a checkpoint was written."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmpretrain.registry import LOOPS
from torch import nn
from torch.utils.data import DataLoader

from mmunimoco.utils.config_errors import named_field

from .exact_loader import SeededBatches, exact_loader
from .position import Layout, Position, check_equal, translate
from .random_state import preserved_random_state, restore_random_state


class ExactLoop:
    """What the loops share: a position in the data, and validation apart.

    Every batch has random numbers of its own, drawn from seed, epoch and
    number; validation leaves those of training as they were. So neither the
    number of workers, nor prefetching, nor a restart changes a batch.

    Attributes:
        random_state (dict | None): During validation that of training.
        validated (bool): Whether the validation that is due after the last
            step is done.
    """

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict, **options: Any
    ) -> None:
        if isinstance(dataloader, dict):
            with named_field('train_dataloader'):
                dataloader = runner.build_dataloader(
                    dataloader,
                    seed=runner.seed,
                    diff_rank_seed=runner._randomness_cfg.get(
                        'diff_rank_seed'
                    ),
                )
        _check_length(dataloader)
        loader = exact_loader(dataloader, runner.seed, runner.rank)
        super().__init__(runner, loader, **options)
        check_equal(all_gather_object(self.layout))
        self.random_state: dict | None = None
        self.validated = False
        self._resumed = False
        self._start = 0
        self._restored: Mapping | None = None

    def run(self) -> nn.Module:
        """Train.

        Returns:
            nn.Module: The model.
        """
        with self.dataloader.worker_init_fn.training():
            return self._run()

    @property
    def batches(self) -> SeededBatches:
        """The batch sampler."""
        return self.dataloader.batch_sampler

    @property
    def layout(self) -> Layout:
        """How images are dealt out in this run."""
        return Layout(
            len(self.batches),
            self.batches.batch_size,
            self.runner.world_size,
            len(self.dataloader.dataset),
        )

    def state_dict(self) -> dict:
        """What a checkpoint has to hold beside epoch and iteration."""
        return dict(
            layout=self.layout.as_dict(),
            seed=self.batches.seed,
            sampler_seed=getattr(self.batches.sampler, 'seed', None),
            validated=self.validated,
        )

    def load_state_dict(self, state: Mapping, random_state: Mapping) -> None:
        """Go on where another loop wrote its state.

        Args:
            state (Mapping): What :meth:`state_dict` returned.
            random_state (Mapping): Of this process' global generators.

        Raises:
            ValueError: If data or processes have changed so that there is no
                such place.
        """
        saved = Layout(**state['layout'])
        position = self._translate(saved)
        if saved != self.layout:
            print_log(
                f'The checkpoint is of {saved}; this run has {self.layout}. '
                f'It goes on after {position.start} batches of epoch '
                f'{self._epoch + 1}; {position.repeated} images are seen '
                'twice in it.' + self._rate_warning(saved),
                logger='current',
                level=logging.WARNING,
            )
        self._iter, self._start = position.iteration, position.start
        self.batches.seed = state['seed']
        if state['sampler_seed'] is not None:
            self.batches.sampler.seed = state['sampler_seed']
        self.validated = state['validated']
        self._restored = random_state
        self._resumed = True

    def start_without_state(self) -> None:
        """Go on from a checkpoint of mmengine's loops, which has none."""
        start = self._iter - self._epoch * len(self.batches)
        self._start = start if 0 <= start <= len(self.batches) else 0

    def _rate_warning(self, saved: Layout) -> str:
        if saved.images == self.layout.images:
            return ''
        return (
            f' The learning rate is still that for {saved.images} images a '
            f'step, which are {self.layout.images} now.'
        )

    def _restore_random_state(self) -> None:
        if self._restored is not None:
            restore_random_state(self._restored)

    def _validate(self) -> None:
        with preserved_random_state() as self.random_state:
            # What is saved from now on has the result.
            self.validated = True
            self.runner.val_loop.run()
        self.random_state = None

    def _validate_if_due(self, done: int, total: int) -> None:
        """Validate after so many epochs or steps of all."""
        self.validated = False
        self._decide_current_val_interval()
        if (
            self.runner.val_loop is not None
            and done >= self.val_begin
            and (done % self.val_interval == 0 or done == total)
        ):
            self._validate()

    def run_iter(self, *args: Any) -> None:
        """One step; a validation before it counts no more."""
        self.validated = False
        super().run_iter(*args)


@LOOPS.register_module()
class ExactEpochLoop(ExactLoop, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, exact from any checkpoint.

    With checkpoints of ``ExactCheckpointHook``, of epochs or of iterations,
    the resumed run is bit by bit the one that was never stopped. What was
    trained on in the present epoch is not loaded again. Batches, and so
    results, do not depend on the number of workers.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The training data.
        **options: Of ``EpochBasedTrainLoop``: ``max_epochs``, ``val_begin``,
            ``val_interval``, ``dynamic_intervals``.

    Raises:
        ValueError: If the data has no batches of indices, or the processes
            have not the same number of them.
    """

    def _run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        self._restore_random_state()
        if self._resumed and self._start == 0 and not self.validated:
            self._validate_if_due(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for an epoch, or for what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.batches.epoch, self.batches.start = self._epoch, self._start
        if self._start:
            # The run that was not stopped called no hooks here.
            self._restore_random_state()
        for index, batch in enumerate(self.dataloader, self._start):
            self.run_iter(index, batch)
        self._start, self._restored = 0, None
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _translate(self, saved: Layout) -> Position:
        return translate(
            saved,
            self.layout,
            self._epoch,
            self._iter,
            _counts_steps(self.runner.param_schedulers),
        )


@LOOPS.register_module()
class ExactIterLoop(ExactLoop, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, exact from any checkpoint.

    Of what was trained on only the indices are drawn again, nothing is
    loaded. With an infinite sampler or one that ends with each epoch.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The training data.
        **options: Of ``IterBasedTrainLoop``: ``max_iters``, ``val_begin``,
            ``val_interval``, ``dynamic_intervals``.

    Raises:
        ValueError: If the data has no batches of indices, or the processes
            have not the same number of them.
    """

    def _run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        self._restore_random_state()
        if self._resumed and self._iter and not self.validated:
            self._validate_if_due(self._iter, self._max_iters)
        self.runner.call_hook('before_train_epoch')
        self._restore_random_state()
        self.dataloader_iterator = self._all_batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate_if_due(self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def start_without_state(self) -> None:
        """The number of steps is the position."""

    def _all_batches(self) -> Iterator[Any]:
        """Batches after those trained on, for as many epochs as it takes."""
        epoch, start = self._find_start()
        while True:
            self.batches.epoch, self.batches.start = epoch, start
            _set_epoch(self.batches.sampler, epoch)
            yield from self.dataloader
            epoch, start = epoch + 1, 0

    def _find_start(self) -> tuple[int, int]:
        """Epoch and batch in it; an infinite sampler has one epoch."""
        if hasattr(self.batches.sampler, 'indices'):
            return 0, self._iter
        return divmod(self._iter, len(self.batches))

    def _translate(self, saved: Layout) -> Position:
        if saved.images != self.layout.images:
            raise ValueError(
                f'the checkpoint is of {saved}; this run has {self.layout}. '
                'Its length and schedules count steps, which would not mean '
                f'the same: keep {saved.images} images a step by '
                'train_dataloader.batch_size='
                f'{max(1, saved.images // self.layout.processes)}, or begin '
                'anew from its weights (load_from without --resume)'
            )
        return Position(self._iter, 0)


def _check_length(dataloader: DataLoader) -> None:
    """Refuse data of which no batch can be made: an epoch of nothing."""
    is_infinite = hasattr(dataloader.sampler, 'indices')
    if len(dataloader) == 0 and not is_infinite:
        raise ValueError(
            f'train_dataloader.batch_size is {dataloader.batch_size}, but of '
            f'the {len(dataloader.dataset)} images of train_dataloader.dataset'
            ' a process has fewer, and drop_last leaves no batch: lower it, '
            'or give more images'
        )


def _set_epoch(sampler: Any, epoch: int) -> None:
    if hasattr(sampler, 'set_epoch'):
        sampler.set_epoch(epoch)


def _counts_steps(schedulers: Any) -> bool:
    """Whether a schedule of mmengine's counts steps, not epochs."""
    if isinstance(schedulers, dict):
        return any(map(_counts_steps, schedulers.values()))
    return any(not each.by_epoch for each in schedulers or ())
