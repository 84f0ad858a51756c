"""A data loader whose batches do not depend on which were loaded before."""

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

from .random_state import preserved_random_state, seed_random_state


class SeededBatch(list):
    """The indices of a batch, with the numbers that its seed is made of."""

    entropy: tuple[int, ...] = ()


class SeededBatches(Sampler):
    """A batch sampler that can start anywhere and seeds each batch.

    Args:
        batch_sampler (Iterable[list]): Yields the indices of each batch, the
            same whenever it is iterated over for the same epoch.
        seed (int): Of all random numbers in the data pipeline.
        rank (int): This process; each has random numbers of its own.

    Attributes:
        epoch (int): Epoch of the next iteration.
        start (int): Number of batches that it leaves out. Their indices are
            drawn, nothing is loaded.
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

    @property
    def drop_last(self) -> bool:
        """Whether an incomplete last batch is left out."""
        return self.batch_sampler.drop_last


class SeededSamples:
    """A dataset that draws the random numbers of a batch from its seed.

    So a batch is the same whether worker 0, 1 or 3 loads it, as its first or
    as its thousandth, or the training process itself, whose own random
    numbers are left alone. All else is asked of the dataset.

    Args:
        dataset (Dataset): Of which samples are got by index.
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
        # Not while it is unpickled, when there is no dataset yet.
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


class WorkerStart:
    """Start of a worker, which outlives a SIGTERM while training goes on.

    Clusters signal every process of a job. The one that trains decides what
    to do, and needs its workers for the step that it is in.

    Args:
        first (Callable, optional): What mmengine does at the start.
    """

    def __init__(self, first: Callable | None) -> None:
        self.first = first
        # Shared, and without a lock: signal handlers read it.
        self._training = RawValue('b', False)

    def __call__(self, worker_id: int) -> None:
        if self.first is not None:
            self.first(worker_id)
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Workers stay while the context lasts; afterwards they obey."""
        self._training.value = True
        try:
            yield
        finally:
            self._training.value = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._training.value:
            os._exit(0)


def exact_loader(loader: DataLoader, seed: int, rank: int) -> DataLoader:
    """Rebuild a loader so that each of its batches can be had by itself.

    Args:
        loader (DataLoader): As mmengine builds it.
        seed (int): Of the random numbers in the data pipeline.
        rank (int): This process.

    Returns:
        DataLoader: Of the same batches, workers and options. Its
        ``batch_sampler`` is a :class:`SeededBatches`.

    Raises:
        ValueError: If the loader has no batch sampler, so that there is no
            position to resume at.
    """
    if loader.batch_sampler is None:
        raise ValueError(
            'train_dataloader has no batches of indices (an IterableDataset, '
            'or batch_size=None), so there is no position to resume at: use '
            "a dataset that is asked by index, or type='EpochBasedTrainLoop' "
            'in train_cfg'
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
        # Each iterator draws from it what nobody uses; without one it would
        # draw from the generator that training draws from.
        generator=torch.Generator(),
        **options,
    )
