"""A data loader whose batches do not depend on what was loaded before."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info

from .process_state import preserved_random_state, seed_random_state


class SeededBatch(list):
    """The indices of a batch, and the numbers that its seed is made of."""

    entropy: tuple[int, ...] = ()


class SeededBatches(Sampler):
    """A batch sampler that can start anywhere and gives each batch a seed.

    Args:
        batch_sampler (Iterable[list]): Yields the indices of each batch, the
            same each time it is iterated over in the same epoch.
        seed (int): Seed of the data pipeline.
        rank (int): Rank of this process; each has its own random numbers.

    Attributes:
        epoch (int): Epoch of the next iteration.
        start (int): Number of batches to skip. Their indices are drawn, but
            nothing is loaded.
    """

    def __init__(self, batch_sampler: Any, seed: int, rank: int) -> None:
        self.batch_sampler = batch_sampler
        self.seed = seed
        self.rank = rank
        self.epoch = 0
        self.start = 0

    def __iter__(self) -> Iterator[SeededBatch]:
        place = (self.seed, self.rank, self.epoch)
        batches = enumerate(self.batch_sampler)
        for number, indices in islice(batches, self.start, None):
            batch = SeededBatch(indices)
            batch.entropy = (*place, number)
            yield batch

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever it starts."""
        return len(self.batch_sampler)

    @property
    def sampler(self) -> Any:
        """The sampler of single indices below, if there is one."""
        return getattr(self.batch_sampler, 'sampler', None)

    @property
    def batch_size(self) -> int:
        """Images of a batch."""
        return self.batch_sampler.batch_size


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


def exact_loader(loader: DataLoader, seed: int, rank: int) -> DataLoader:
    """Rebuild a loader so that any of its batches can be loaded on its own.

    Args:
        loader (DataLoader): As mmengine builds it.
        seed (int): Seed of the data pipeline.
        rank (int): Rank of this process.

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
    return DataLoader(
        SeededSamples(loader.dataset),
        batch_sampler=SeededBatches(loader.batch_sampler, seed, rank),
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
