"""A data loader whose batches do not depend on what was loaded before."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Sampler,
    get_worker_info,
)

from .process_state import (
    capture_random_state,
    preserved_random_state,
    restore_random_state,
    seed_random_state,
)


class SeededBatch(list):
    """The indices of a batch, and the numbers that its seed is made of."""

    entropy: tuple[int, ...] = ()


class SeededBatches(Sampler):
    """A batch sampler that can start anywhere and gives each batch a seed.

    Samplers with a seed of their own, such as mmengine's, are used as they
    are. Others may draw from the global generators, which are seeded for them
    by seed and epoch, the same on all ranks unless ``diff_rank_seed``; or
    from a generator that they keep, so those without ``set_epoch`` run through
    the earlier epochs first.

    Args:
        batch_sampler (Iterable[list]): Yields the indices of each batch.
        seed (int): Seed of the data pipeline.
        rank (int): Rank of this process; each has its own random numbers.
        diff_rank_seed (bool): Whether the global generators of a batch
            sampler differ between ranks, as mmengine's ``randomness`` has it.
            Defaults to False.

    Attributes:
        epoch (int): Epoch of the next iteration.
        start (int): Number of batches to skip, of this epoch and the next
            ones. Their indices are drawn, but nothing is loaded.
        has_epochs (bool): Whether any epoch can be drawn at once.
    """

    def __init__(
        self,
        batch_sampler: Any,
        seed: int,
        rank: int,
        diff_rank_seed: bool = False,
    ) -> None:
        self.batch_sampler = batch_sampler
        self.seed = seed
        self.rank = rank
        self.sampler_rank = rank if diff_rank_seed else 0
        self.epoch = 0
        self.start = 0
        self._drawn = 0  # epochs
        is_plain = type(batch_sampler) is BatchSampler
        self._has_seed = is_plain and hasattr(self.sampler, 'seed')
        self.has_epochs = self._has_seed or hasattr(
            batch_sampler.sampler if is_plain else batch_sampler, 'set_epoch'
        )

    def __iter__(self) -> Iterator[SeededBatch]:
        while True:
            if not self.has_epochs:
                for epoch in range(self._drawn, self.epoch):
                    deque(self._indices(epoch), maxlen=0)
            self._drawn = self.epoch + 1
            place, number = (self.seed, self.rank, self.epoch), -1
            for number, indices in enumerate(self._indices(self.epoch)):
                if number >= self.start:
                    batch = SeededBatch(indices)
                    batch.entropy = (*place, number)
                    yield batch
            if not self.start > number + 1 > 0:
                return
            # The start is in one of the next epochs.
            self.epoch, self.start = self.epoch + 1, self.start - number - 1

    def _indices(self, epoch: int) -> Iterator[list[int]]:
        """Yield the batches of an epoch, the same whenever that is done."""
        for sampler in (self.sampler, self.batch_sampler):
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
        if self._has_seed:
            yield from self.batch_sampler
            return
        batches, state = None, None
        while True:
            with preserved_random_state(cuda=False):
                if batches is None:
                    # More words than a batch has, so never the same.
                    words = (self.seed, epoch, self.sampler_rank, 0, 1)
                    seed_random_state(*words, cuda=False)
                    batches = iter(self.batch_sampler)
                else:
                    restore_random_state(state)
                indices = next(batches, None)
                state = capture_random_state(cuda=False)
            if indices is None:
                return
            yield indices

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever it starts."""
        return len(self.batch_sampler)

    @property
    def sampler(self) -> Any:
        """The sampler of single indices below, if there is one."""
        return getattr(self.batch_sampler, 'sampler', None)

    @property
    def batch_size(self) -> int:
        """Images of a batch; 0 if a batch sampler of your own has none."""
        return getattr(self.batch_sampler, 'batch_size', 0)


class SeededSamples:
    """A dataset that loads a batch with random numbers from the batch's seed.

    So a batch is the same whichever worker loads it, and whatever that worker
    has loaded before. If the training process loads it (no workers), the
    state of its own generators is preserved. Other attributes are those of
    the dataset.

    Args:
        dataset (Dataset): A map-style dataset.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[index]

    def __getitems__(self, batch: SeededBatch) -> list:
        if get_worker_info() is not None:
            return self._load(batch)
        with preserved_random_state(cuda=False):
            return self._load(batch)

    def _load(self, batch: SeededBatch) -> list:
        seed_random_state(*batch.entropy, cuda=False)
        return [self.dataset[index] for index in batch]

    def __getattr__(self, name: str) -> Any:
        # While this is unpickled there is no dataset yet.
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


class WorkerStart:
    """A ``worker_init_fn`` whose workers ignore SIGTERM during training.

    Clusters signal every process of a job, but the training process still
    needs its workers for the current step.

    Args:
        first (Callable, optional): The loader's own ``worker_init_fn``.
    """

    def __init__(self, first: Callable | None) -> None:
        self.first = first
        # Shared, and without a lock because a signal handler reads it.
        self._training = RawValue('b', False)

    def __call__(self, worker_id: int) -> None:
        if self.first is not None:
            self.first(worker_id)
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Workers ignore SIGTERM within the context, and exit after it."""
        self._training.value = True
        try:
            yield
        finally:
            self._training.value = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._training.value:
            os._exit(0)


def exact_loader(
    loader: DataLoader, seed: int, rank: int, diff_rank_seed: bool = False
) -> DataLoader:
    """Rebuild a loader so that any of its batches can be loaded on its own.

    Args:
        loader (DataLoader): As mmengine builds it.
        seed (int): Seed of the data pipeline.
        rank (int): Rank of this process.
        diff_rank_seed (bool): See :class:`SeededBatches`.

    Returns:
        DataLoader: With the same batches, workers and options. Its
        ``batch_sampler`` is a :class:`SeededBatches`.

    Raises:
        ValueError: If the loader has no batch sampler, so that there is no
            position to resume at.
    """
    if loader.batch_sampler is None:
        raise ValueError(
            'train_dataloader has no batches of indices (an IterableDataset, '
            'or batch_size=None), so there is no position to resume at: use '
            "a map-style dataset, or type='EpochBasedTrainLoop' in train_cfg"
        )
    options = {}
    if loader.num_workers:
        options.update(
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
            multiprocessing_context=loader.multiprocessing_context,
        )
    exact = DataLoader(
        SeededSamples(loader.dataset),
        batch_sampler=SeededBatches(
            loader.batch_sampler, seed, rank, diff_rank_seed
        ),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=WorkerStart(loader.worker_init_fn),
        # Every iterator draws a base seed, which nothing uses here; without
        # this it would draw it from the generator that training draws from.
        generator=torch.Generator(),
        **options,
    )
    # None beside a batch sampler, and read-only; hooks such as mmpretrain's
    # PreciseBNHook compute with it.
    vars(exact)['batch_size'] = loader.batch_size
    return exact
