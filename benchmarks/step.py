"""Cases ``step``, ``augment``, ``end2end`` and ``scaling``: training steps."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .measure import METHOD, quartiles, ratio, stopwatch, time_interleaved
from .peak_memory import peak_extra_bytes
from .processes import run_processes
from .published import PublishedUniMoCo
from .trainer import (
    CLASSES,
    Trainer,
    epoch_rate,
    moco_config,
    our_config,
    read_images,
    set_depth,
    synthetic_batches,
)

MOCO = 'mmpretrain MoCo v2'
SGD = dict(lr=0.03, momentum=0.9, weight_decay=1e-4)
MOMENTUM, TEMPERATURE = 0.999, 0.2
LABEL_SHARES = (0.0, 0.1, 1.0)
WORLD_SIZES = (1, 2, 4)
# Steps between two looks at the clock: the host runs ahead of a GPU.
STEPS = dict(cpu=1, cuda=5)


@dataclass(frozen=True)
class Size:
    """Shape of a training step.

    Attributes:
        batch (int): Images per step.
        image (int): Height and width.
        depth (int): Of the ResNet.
    """

    batch: int
    image: int = 224
    depth: int = 50


QUICK = Size(2, image=32, depth=18)
SIZES = dict(cpu=Size(8, image=64), cuda=Size(256))
SCALING_SIZES = dict(cpu=Size(8, image=64, depth=18), cuda=Size(256))
# The processes share the cores, so each does little.
PROCESS_SIZE = Size(8, image=32, depth=18)
BATCHES = dict(cpu=(4, 8, 16), cuda=(32, 64, 128, 256))


def step(settings: Any) -> dict[str, Any]:
    """Run the case ``step``; see ``speed.py``."""
    size, device = _size(settings, SIZES), settings.device
    torch.manual_seed(0)
    batches = synthetic_batches(size.batch, size.image, device)
    trainers = {
        'ours': build_trainer(our_config(device), settings, size),
        MOCO: build_trainer(moco_config(device), settings, size),
    }
    trainers['ours'].model.head.label_queue.random_(0, CLASSES)
    published = build_published(trainers['ours'])
    prepared = prepare_batches(trainers['ours'], batches)
    steps = {
        name: repeat(trainer.step, batches, STEPS[device])
        for name, trainer in trainers.items()
    }
    steps['published'] = repeat(
        lambda batch: published.step(*batch), prepared, STEPS[device]
    )
    seconds = _time(steps, settings, 6)
    return dict(
        what='uint8 images on the device to updated weights, with the '
        "config's hooks, all images and keys labeled; the published step gets "
        'augmented float images, and has no shuffled BN. On a GPU ours runs '
        'in bfloat16, compiled, MoCo v2 with --amp, the published step in '
        'float32; on a CPU all in float32',
        time_method=METHOD,
        **asdict(size),
        ratios={
            f'{other} / ours': ratio(seconds[other], seconds['ours'])
            for other in (MOCO, 'published')
        },
        seconds={name: quartiles(x) for name, x in seconds.items()},
        images_per_second=_rates(seconds, size.batch),
        peak_bytes={
            name: peak_extra_bytes(function, device)
            for name, function in steps.items()
        },
    )


def augment(settings: Any) -> dict[str, Any]:
    """Run the case ``augment``; see ``speed.py``."""
    size, device = _size(settings, SIZES), settings.device
    plain = our_config(device)
    plain.data_preprocessor = moco_config('cpu').data_preprocessor
    batches = synthetic_batches(size.batch, size.image, device)
    steps = {
        name: repeat(
            build_trainer(cfg, settings, size).step, batches, STEPS[device]
        )
        for name, cfg in (
            ('augmenting', our_config(device)),
            ('normalising', plain),
        )
    }
    seconds = _time(steps, settings, 6)
    return dict(
        what='our step with augmentation on the device, against the same '
        'step that only normalises',
        time_method=METHOD,
        **asdict(size),
        ratios={
            'augmenting / normalising': ratio(
                seconds['augmenting'], seconds['normalising']
            )
        },
        seconds={name: quartiles(x) for name, x in seconds.items()},
    )


def end2end(settings: Any) -> dict[str, Any]:
    """Run the case ``end2end``; see ``speed.py``."""
    size, device = _size(settings, SIZES), settings.device
    epoch = 2 if settings.quick else dict(cpu=6, cuda=20)[device]
    # What the workers load before the first step is done.
    skip = 1 + 2 * settings.workers
    trainers, resident = {}, {}
    for name, cfg in (
        ('ours', our_config(device)),
        (MOCO, moco_config(device)),
    ):
        trainer = build_trainer(cfg, settings, size, skip + epoch)
        batch = trainer.model.data_preprocessor.cast_data(
            next(iter(trainer.loader))
        )
        trainers[name], resident[name] = trainer, [batch] * (epoch + 1)
    rates, alone = ({name: [] for name in trainers} for _ in range(2))
    for index in range(1 + settings.rounds(3)):
        for name, trainer in trainers.items():
            for found, batches, first in (
                (rates, trainer.loader, skip),
                (alone, resident[name], 1),
            ):
                rate = epoch_rate(
                    batches, size.batch, first, trainer.step, device
                )
                if index:
                    found[name].append(rate)
    return dict(
        what='JPEG files through the data loader of each config to updated '
        'weights, hooks included; the images are unlabeled. "step alone" '
        'repeats a batch that is on the device',
        time_method=METHOD,
        **asdict(size),
        workers=settings.workers,
        ratios={f'ours / {MOCO}': ratio(rates['ours'], rates[MOCO])}
        | {
            f'{name}, from files / step alone': ratio(rates[name], alone[name])
            for name in trainers
        },
        images_per_second={n: quartiles(x) for n, x in rates.items()},
        step_alone_images_per_second={
            n: quartiles(x) for n, x in alone.items()
        },
    )


def scaling(settings: Any) -> dict[str, Any]:
    """Run the case ``scaling``; see ``speed.py``."""
    size, device = _size(settings, SCALING_SIZES), settings.device
    torch.manual_seed(0)
    steps = {}
    shares = (0.0, 1.0) if settings.quick else LABEL_SHARES
    for share in shares:
        trainer = build_trainer(our_config(device), settings, size)
        labels = trainer.model.head.label_queue
        labels.random_(0, CLASSES)
        labels[torch.rand(len(labels)) >= share] = -1
        batches = synthetic_batches(size.batch, size.image, device, share)
        steps[share] = repeat(trainer.step, batches, STEPS[device])
    # Many rounds: a difference of 1 % is looked for, and steps vary by more.
    labeled = _time(steps, settings, 45)
    steps = {}
    for batch in (4,) if settings.quick else BATCHES[device]:
        batches = synthetic_batches(batch, size.image, device)
        steps[batch] = repeat(trainer.step, batches, STEPS[device])
    batched = _time(steps, settings, 9)
    process_size = QUICK if settings.quick else PROCESS_SIZE
    spread_over = {}
    for world_size in WORLD_SIZES[1:2] if settings.quick else WORLD_SIZES:
        # The ranks wait for each other, so one tells the time of all.
        values = run_processes(time_rank, world_size, process_size)[0]
        rate = [world_size * process_size.batch / x for x in values]
        spread_over[world_size] = quartiles(rate)
    return dict(
        what='our step from uint8 images on the device; processes: '
        f'ResNet-{process_size.depth} at {process_size.image}, batch '
        f'{process_size.batch} each, gloo, one thread each',
        time_method=METHOD,
        **asdict(size),
        ratios={
            f'{100 * share:g} % labels / none': ratio(
                labeled[share], labeled[0.0]
            )
            for share in shares[1:]
        },
        seconds_by_label_share={
            share: quartiles(x) for share, x in labeled.items()
        },
        images_per_second_by_batch={
            batch: quartiles([batch / x for x in values])
            for batch, values in batched.items()
        },
        images_per_second_by_processes=spread_over,
    )


def build_trainer(
    cfg: Config, settings: Any, size: Size, batches: int = 0
) -> Trainer:
    """Build a training run of a shape.

    Args:
        cfg (Config): A pre-training config; modified in place.
        settings (Settings): See ``speed.py``.
        size (Size): Shape of model and batch.
        batches (int): Batches of its data loader, which then has
            ``settings.workers`` workers. Defaults to 0: the loader is unused.
    """
    # An unused loader must not be so short that each step ends an epoch, when
    # hooks log and save.
    length = batches or 1000
    read_images(
        set_depth(cfg, size.depth),
        settings.image_paths(),
        size.batch,
        length,
        settings.workers if batches else 0,
        size.image,
    )
    return Trainer(cfg, settings.run_folder())


class Encoder(nn.Module):
    """Backbone and neck of a model as one module that returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck = model.backbone, model.neck

    def forward(self, x: Tensor) -> Tensor:
        return self.neck(self.backbone(x))[0]


def build_published(trainer: Trainer) -> PublishedUniMoCo:
    """Build the published step around a copy of a run's encoder."""
    model = trainer.model
    published = PublishedUniMoCo(
        Encoder(model), model.head.queue.T, SGD, MOMENTUM, TEMPERATURE
    )
    published.head.label_queue.copy_(model.head.label_queue)
    return published


def prepare_batches(trainer: Trainer, batches: list[dict]) -> list[tuple]:
    """Return two float views and labels per batch, preprocessed beforehand."""
    prepared = []
    for batch in batches:
        labels = torch.cat([x.gt_label for x in batch['data_samples']])
        views = trainer.model.data_preprocessor(
            deepcopy(batch), training=True
        )['inputs']
        prepared.append((*views, labels.to(views[0].device)))
    return prepared


def time_rank(size: Size) -> list[float]:
    """Train on one rank of a gloo group; return the seconds of each step."""
    init_default_scope('mmpretrain')
    cfg = set_depth(our_config('cpu'), size.depth)
    model = MODELS.build(
        cfg.model | dict(data_preprocessor=cfg.data_preprocessor)
    )
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model = MMDistributedDataParallel(model, broadcast_buffers=False)
    batches = synthetic_batches(size.batch, size.image, 'cpu')
    train = repeat(lambda x: model.train_step(x, optim_wrapper), batches, 1)
    return [stopwatch(train, 'cpu') for _ in range(8)][2:]


def repeat(
    train: Callable[[Any], Any], batches: list, count: int
) -> Callable[[], None]:
    """Return a function that trains on the next ``count`` batches."""
    endless = cycle(batches)

    def steps() -> None:
        for _ in range(count):
            train(next(endless))

    return steps


def _size(settings: Any, sizes: dict[str, Size]) -> Size:
    size = QUICK if settings.quick else sizes[settings.device]
    return replace(size, batch=settings.batch or size.batch)


def _time(
    steps: dict[Any, Callable], settings: Any, rounds: int
) -> dict[Any, list[float]]:
    """Return the seconds of a single step in each round."""
    device = settings.device
    seconds = time_interleaved(
        steps, settings.rounds(rounds), device, warmup=2
    )
    return {
        key: [elapsed / STEPS[device] for elapsed in values]
        for key, values in seconds.items()
    }


def _rates(seconds: dict[str, list[float]], batch: int) -> dict[str, dict]:
    return {
        name: quartiles([batch / x for x in values])
        for name, values in seconds.items()
    }
