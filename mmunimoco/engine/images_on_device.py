"""Data sets whose images are on the device, and labels as tensors.

A data set such as CIFAR is small enough for that, and its network so fast
that reading, packing and collating single images would limit it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.datasets import PackInputs
from torch import Tensor
from torch.utils.data import DataLoader

from mmunimoco.datasets.annotations import leaves_of
from mmunimoco.datasets.pipelines import transforms_of
from mmunimoco.datasets.transforms import IndexAsImage
from mmunimoco.models import TwoViewAugment, UniMoCoHead
from mmunimoco.models.labels import CollectedSamples, SampleLabels
from mmunimoco.utils.checkpoint import bare_model

from .exact.process_state import preserved_random_state

_CHUNK = 8192  # data samples that exist at once


def put_images_on_device(runner: Runner) -> None:
    """Hand all training images to the data preprocessor of a model.

    Args:
        runner (Runner): Its data preprocessor is a ``TwoViewAugment``.

    Raises:
        ValueError: If it is not, or the images cannot be stacked.
    """
    preprocessor = bare_model(runner.model).data_preprocessor
    images = keep_images(preprocessor, runner.train_dataloader.dataset)
    runner.logger.info(
        f'images_on_device: {len(images)} images, '
        f'{images.numel() / 2**20:.0f} MB, are on {preprocessor.device}.'
    )


def keep_images(preprocessor: Any, dataset: Any) -> Tensor:
    """Stack the images of a dataset, and hand them to the preprocessor.

    Args:
        preprocessor (TwoViewAugment): Data preprocessor of the model.
        dataset (Dataset): See :func:`stack_images`.

    Raises:
        ValueError: If the preprocessor is another one, or the images cannot
            be stacked.
    """
    if not isinstance(preprocessor, TwoViewAugment):
        raise ValueError(
            'StepOptionsHook(images_on_device=True) needs the data '
            'preprocessor TwoViewAugment, but it is '
            f'{type(preprocessor).__name__}'
        )
    images = stack_images(dataset)
    preprocessor.keep_images(images)
    return images


def stack_images(dataset: Any) -> Tensor:
    """Stack the images of a dataset in the order of their ``sample_idx``.

    Args:
        dataset (Dataset): A dataset of mmengine's kind, or a wrapper of one,
            with the images in memory.

    Returns:
        Tensor: Shape (N, 3, H, W), uint8.

    Raises:
        ValueError: If images are not in memory, differ in size or dtype, or
            if their ``sample_idx`` are not 0 ... N - 1 or are used twice for
            different images, as in concatenated datasets.
    """
    images = {}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        image, index = info.get('img'), info.get('sample_idx', i)
        if image is None:
            raise ValueError(
                f'image {index} is not in memory (no img in its annotation); '
                'images_on_device is for datasets such as CIFAR10, others use '
                'LoadTwoCrops'
            )
        known = images.setdefault(index, image)
        if known is not image and not np.array_equal(known, image):
            raise ValueError(
                f'two images have the sample_idx {index}; images_on_device '
                'cannot tell the images of concatenated datasets apart'
            )
    if sorted(images) != list(range(len(images))):
        raise ValueError(
            'the sample_idx of the training images are not 0 to '
            f'{len(images) - 1}; images_on_device needs the whole dataset'
        )
    kinds = {(image.shape, image.dtype.name) for image in images.values()}
    shape, dtype = next(iter(kinds))
    if len(kinds) != 1 or len(shape) != 3 or dtype != 'uint8':
        raise ValueError(
            'images_on_device needs uint8 images (H, W, 3) of one size, '
            f'but there are {sorted(kinds)[:3]}'
        )
    stacked = np.stack([images[i] for i in range(len(images))])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def batch_indices_at_once(runner: Runner) -> None:
    """Let the train loop make its batches from tensors, without workers.

    Samplers, order and labels stay, so a run is the same to the bit. The
    loader is left alone, which is logged, if pipelines do more than
    ``IndexAsImage`` and ``PackInputs``, or the model has no ``UniMoCoHead``.

    Args:
        runner (Runner): In ``before_train``.

    Raises:
        ValueError: If a label is not what the head takes.
    """
    loop = runner.train_loop
    loader = loop.dataloader
    head = getattr(bare_model(runner.model), 'head', None)
    if (
        not isinstance(head, UniMoCoHead)
        or loader.batch_sampler is None
        or not _gives_indices(loader.dataset)
    ):
        runner.logger.info(
            'images_on_device: samples are collated one by one, because the '
            'pipeline of train_dataloader is not just IndexAsImage and '
            'PackInputs, or the model has no UniMoCoHead.'
        )
        return
    loop.dataloader = DataLoader(
        IndexBatches(
            loader.dataset, head, loader.pin_memory and _has_gpu(runner)
        ),
        batch_sampler=loader.batch_sampler,
        collate_fn=_unchanged,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
    )
    if type(loop) is IterBasedTrainLoop:
        # It holds an iterator of the old loader; the exact loop makes its own.
        batches = type(loop.dataloader_iterator)
        # Iterators draw a seed when they are made; the old one has done so.
        with preserved_random_state():
            loop.dataloader_iterator = batches(loop.dataloader)


class IndexBatches:
    """A dataset that returns the indices and labels of a batch as tensors.

    For pipelines of ``IndexAsImage`` and ``PackInputs``, which run once, here.
    Other attributes are those of the dataset.

    Args:
        dataset (Dataset): The dataset.
        head (UniMoCoHead): Collects the labels.
        pin_memory (bool): Whether indices are in pinned memory.
            Defaults to False.
    """

    def __init__(
        self, dataset: Any, head: UniMoCoHead, pin_memory: bool = False
    ) -> None:
        self.dataset = dataset
        self.pin_memory = pin_memory
        indices, parts = [], []
        for start in range(0, len(dataset), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(dataset)))
            samples = [dataset[row] for row in rows]
            indices.extend(sample['inputs'] for sample in samples)
            parts.append(head.collect([x['data_samples'] for x in samples]))
        self.indices = torch.stack(indices)  # (N,), of the images
        self.labels = SampleLabels.join(parts)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict:
        return self.dataset[row]

    def __getitems__(self, rows: Sequence[int]) -> dict:
        """Return a batch, which no collate function has to look at."""
        where = torch.tensor(rows)
        inputs = self.indices[where]
        return dict(
            inputs=inputs.pin_memory() if self.pin_memory else inputs,
            data_samples=CollectedSamples(
                self._sample, rows, self.labels.select(where)
            ),
        )

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def _sample(self, row: int) -> Any:
        return self.dataset[row]['data_samples']


class KeptBatches:
    """The batches of a loader, whose images stay on the device.

    The first iteration that comes to its end reads them, later ones repeat
    them. For loaders whose batches are the same each time.

    Args:
        loader (Iterable[dict]): Gives batches with ``inputs``.
        device (torch.device): Where the inputs are kept.
    """

    def __init__(self, loader: Iterable[dict], device: torch.device) -> None:
        self.loader = loader
        self.device = device
        self._kept: list[dict] | None = None

    def __iter__(self) -> Iterator[dict]:
        if self._kept is not None:
            yield from self._kept
            return
        batches = []
        for batch in self.loader:
            inputs = batch['inputs']
            if isinstance(inputs, Tensor):
                batch = dict(batch, inputs=inputs.to(self.device))
            batches.append(batch)
            yield batch
        self._kept = batches


def _gives_indices(dataset: Any) -> bool:
    """Whether samples are indices and labels, the same in every epoch."""
    kinds = (IndexAsImage, PackInputs)
    return all(
        tuple(map(type, transforms_of(leaf))) == kinds
        for leaf in leaves_of(dataset)
    )


def _has_gpu(runner: Runner) -> bool:
    device = bare_model(runner.model).data_preprocessor.device
    return torch.device(device).type == 'cuda'


def _unchanged(batch: dict) -> dict:
    return batch
