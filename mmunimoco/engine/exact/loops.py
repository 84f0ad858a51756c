"""Training loops that resume exactly, at any step of any epoch."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmpretrain.registry import LOOPS
from torch import nn
from torch.utils.data import DataLoader

from mmunimoco.models.unimoco import UniMoCo
from mmunimoco.utils.checkpoint import bare_model
from mmunimoco.utils.config_errors import named_field

from .loader import SeededBatches, exact_loader
from .position import Layout, Position, check_equal, how_to_keep, translate
from .process_state import preserved_random_state, restore_random_state


class ExactLoop:
    """Base of the exact loops: the position in the data, and validation.

    Every batch has its own random numbers, seeded by seed, epoch and batch
    index, and validation leaves those of training untouched. So neither the
    number of workers, nor prefetching, nor a restart changes a batch.

    Attributes:
        random_state (dict | None): The generators of training, while a
            validation is running.
        validated (bool): Whether the validation due after the last step is
            done.
    """

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict, **options: Any
    ) -> None:
        differ = False
        if isinstance(dataloader, dict):
            differ = bool(runner._randomness_cfg.get('diff_rank_seed'))
            with named_field('train_dataloader'):
                dataloader = runner.build_dataloader(
                    dataloader, seed=runner.seed, diff_rank_seed=differ
                )
        _check_length(dataloader)
        loader = exact_loader(dataloader, runner.seed, runner.rank, differ)
        super().__init__(runner, loader, **options)
        check_equal(all_gather_object(self.layout))
        self.random_state: dict | None = None
        self.validated = False
        self._resumed = False
        self._start = 0
        self._restored: Mapping | None = None

    def run(self) -> nn.Module:
        """Train, and return the model."""
        with self.dataloader.worker_init_fn.training():
            return self._run()

    @property
    def batches(self) -> SeededBatches:
        """The batch sampler."""
        return self.dataloader.batch_sampler

    @property
    def layout(self) -> Layout:
        """How images are split into batches in this run."""
        return Layout(
            len(self.batches),
            self.batches.batch_size,
            self.runner.world_size,
            len(self.dataloader.dataset),
        )

    def state_dict(self) -> dict:
        """What a checkpoint needs beside epoch and iteration."""
        return dict(
            layout=asdict(self.layout),
            seed=self.batches.seed,
            sampler_seed=getattr(self.batches.sampler, 'seed', None),
            validated=self.validated,
        )

    def load_state_dict(self, state: Mapping, random_state: Mapping) -> None:
        """Resume where another loop saved its state.

        Args:
            state (Mapping): From :meth:`state_dict`.
            random_state (Mapping): Global generators of this process.

        Raises:
            ValueError: If data, processes or the batch sampler have changed
                such that there is no equivalent position.
        """
        saved = Layout(**state['layout'])
        if saved != self.layout and not (
            saved.batch_size and self.layout.batch_size
        ):
            raise ValueError(
                f'the checkpoint is of {saved}; this run has {self.layout}. '
                'Where it stands is only known with the same data and '
                'processes, because the batch sampler of train_dataloader '
                'has no attribute batch_size: keep them, or add it'
            )
        if state['sampler_seed'] is not None and self.batches.sampler is None:
            kind = type(self.batches.batch_sampler).__name__
            raise ValueError(
                'the checkpoint is of a run whose sampler has a seed, but '
                f'train_dataloader.batch_sampler, a {kind}, has no attribute '
                'sampler: keep the batch sampler of that run, or start a new '
                'run from its weights (load_from without --resume)'
            )
        position = self._translate(saved)
        if saved != self.layout:
            text = (
                f'The checkpoint is of {saved}; this run has {self.layout}. '
                f'It resumes after {position.start} batches of epoch '
                f'{self._epoch + 1}; {position.repeated} images are seen '
                'twice in it.'
            )
            if saved.images != self.layout.images:
                text += (
                    f' The learning rate is still that for {saved.images} '
                    f'images a step, now there are {self.layout.images}.'
                )
            print_log(text, logger='current', level=logging.WARNING)
        if position.iteration != self._iter:
            # mmengine has counted for accumulation with the old position.
            self.runner.optim_wrapper.initialize_count_status(
                self.runner.model, position.iteration, self.max_iters
            )
        self._iter, self._start = position.iteration, position.start
        self.batches.seed = state['seed']
        if state['sampler_seed'] is not None:
            self.batches.sampler.seed = state['sampler_seed']
        self.validated = state['validated']
        self._restored = random_state
        self._resumed = True

    def start_without_state(self) -> None:
        """Resume from a checkpoint of mmengine's loops, which has no state."""
        start = self._iter - self._epoch * len(self.batches)
        self._start = start if 0 <= start <= len(self.batches) else 0

    def run_iter(self, *args: Any) -> None:
        """Run one step; whatever was validated before is out of date."""
        self.validated = False
        super().run_iter(*args)

    def _restore_random_state(self) -> None:
        if self._restored is not None:
            restore_random_state(self._restored)

    def _validate_if_due(self, done: int, total: int) -> None:
        """Validate if due after ``done`` of ``total`` epochs or steps."""
        self.validated = False
        self._decide_current_val_interval()
        if (
            self.runner.val_loop is None
            or done < self.val_begin
            or (done % self.val_interval and done != total)
        ):
            return
        with preserved_random_state() as self.random_state:
            # Checkpoints saved from now on have the result.
            self.validated = True
            self.runner.val_loop.run()
        self.random_state = None


@LOOPS.register_module()
class ExactEpochLoop(ExactLoop, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, exact from any checkpoint.

    Resumed from a checkpoint of ``ExactCheckpointHook``, of an epoch or an
    iteration, the run is bit by bit the one that was never stopped. Images
    that were seen in the present epoch are not loaded again. Results do not
    depend on the number of workers.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The training data.
        **options: Arguments of ``EpochBasedTrainLoop``: ``max_epochs``,
            ``val_begin``, ``val_interval``, ``dynamic_intervals``.

    Raises:
        ValueError: If the data has no batches of indices, the processes have
            different numbers of them, or the sampler never ends.
    """

    def _run(self) -> nn.Module:
        if _is_infinite(self.batches.sampler):
            kind = type(self.batches.sampler).__name__
            raise ValueError(
                f'train_dataloader.sampler, a {kind}, never ends an epoch, so '
                "a run of epochs would not end: use type='DefaultSampler', or "
                "train_cfg=dict(_delete_=True, type='ExactIterLoop', "
                'max_iters=...)'
            )
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
        """Train for an epoch, or for the rest of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.batches.epoch, self.batches.start = self._epoch, self._start
        if self._start:
            # The uninterrupted run called no hooks here.
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
            _counts_steps(self.runner),
        )


@LOOPS.register_module()
class ExactIterLoop(ExactLoop, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, exact from any checkpoint.

    On resume only the indices of what was trained on are drawn again, nothing
    is loaded. Works with an infinite sampler or one that ends each epoch.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The training data.
        **options: Arguments of ``IterBasedTrainLoop``: ``max_iters``,
            ``val_begin``, ``val_interval``, ``dynamic_intervals``.

    Raises:
        ValueError: If the data has no batches of indices, or the processes
            have different numbers of them.
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
        """Resume from mmengine's loops: the step count is the position."""

    def _all_batches(self) -> Iterator[Any]:
        """Batches from the present position on, for any number of epochs."""
        batches = self.batches
        batches.epoch, batches.start = 0, self._iter
        # An infinite sampler has a single epoch.
        if batches.has_epochs and not _is_infinite(batches.sampler):
            batches.epoch, batches.start = divmod(self._iter, len(batches))
        while True:
            yield from self.dataloader
            batches.epoch, batches.start = batches.epoch + 1, 0

    def _translate(self, saved: Layout) -> Position:
        if saved.images != self.layout.images:
            raise ValueError(
                f'the checkpoint is of {saved}; this run has {self.layout}. '
                'Its length and schedules count steps, which would change '
                f'their meaning: {how_to_keep(saved, self.layout)}'
            )
        return Position(self._iter, 0)


def _check_length(dataloader: DataLoader) -> None:
    """Refuse data with fewer images than one batch."""
    if len(dataloader) or _is_infinite(dataloader.sampler):
        return
    count = len(dataloader.dataset)
    if dataloader.batch_size is None:
        raise ValueError(
            'train_dataloader.batch_sampler, a '
            f'{type(dataloader.batch_sampler).__name__}, gives no batch of '
            f'the {count} images of train_dataloader.dataset'
        )
    raise ValueError(
        f'train_dataloader.batch_size is {dataloader.batch_size}, but the '
        f'share of a process of the {count} images of '
        'train_dataloader.dataset is smaller, and drop_last leaves no '
        'batch: lower it, or add images'
    )


def _is_infinite(sampler: Any) -> bool:
    return isinstance(sampler, InfiniteSampler)


def _counts_steps(runner: Runner) -> bool:
    """Whether a schedule of mmengine or of the model counts steps."""
    model = bare_model(runner.model)
    if isinstance(model, UniMoCo) and model.counts_steps():
        return True
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):  # of several optimizers
        schedulers = [each for some in schedulers.values() for each in some]
    return any(not each.by_epoch for each in schedulers)
