"""Cases ``step``, ``augment`` and ``scaling``: training steps."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import cycle
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .budget import Budget
from .contest import Contest, contest
from .measure import METHOD, quartiles, stopwatch
from .peak_memory import peak_extra_bytes
from .processes import run_processes
from .published import PublishedUniMoCo
from .trainer import (
    CLASSES,
    Trainer,
    free_memory,
    graphs_config,
    moco_config,
    our_config,
    read_images,
    set_depth,
    synthetic_batches,
)

MOCO = 'mmpretrain MoCo v2'
GRAPHS, PLAIN = 'ours, CUDA graphs', 'augmenting by plain operations'
SGD = dict(lr=0.03, momentum=0.9, weight_decay=1e-4)
MOMENTUM, TEMPERATURE = 0.999, 0.2
LABEL_SHARES = (0.0, 0.1, 1.0)
WORLD_SIZES = (1, 2, 4)
# Larger batches do not need graphs; 32 images a GPU is the published step's.
SMALL = 64
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
# 32 images a GPU are published; 256 fill one.
SIZES = dict(cpu=(Size(8, image=64),), cuda=(Size(32), Size(256)))
SCALING_SIZES = dict(cpu=(Size(8, image=64, depth=18),), cuda=(Size(256),))
# The processes share the cores, so each does little.
PROCESS_SIZE = Size(8, image=32, depth=18)
BATCHES = dict(cpu=(4, 8, 16), cuda=(32, 64, 128, 256))


def step(settings: Any) -> dict[str, Any]:
    """Run the case ``step``; see ``speed.py``."""
    device, parts = settings.device, {}
    sizes = sizes_of(settings, SIZES)

    def join() -> dict[str, Any]:
        joined = {key: {} for key in next(iter(parts.values()))}
        for batch, part in parts.items():
            end = '' if device == 'cpu' else f', batch {batch}'
            for key, values in part.items():
                joined[key] |= {f'{k}{end}': v for k, v in values.items()}
        return dict(
            what='uint8 images on the device to updated weights, with the '
            "config's hooks, all images and keys labeled; the published step "
            'gets augmented float images, and has no shuffled BN. On a GPU '
            'ours runs in bfloat16, compiled, MoCo v2 with --amp, the '
            'published step in float32; on a CPU all in float32',
            time_method=METHOD,
            **asdict(sizes[0]) | dict(batch=[size.batch for size in sizes]),
            **joined,
        )

    for index, size in enumerate(sizes):
        budget = settings.budget.share(len(sizes) - index)

        def save(found: Contest, peaks: dict, batch: int = size.batch) -> None:
            parts[batch] = _step_results(found, peaks, batch)
            settings.save(join())

        save(*_step_at(size, settings, budget, save))
        free_memory(device)
    return join()


def _step_at(
    size: Size, settings: Any, budget: Budget, save: Callable
) -> tuple[Contest, dict]:
    """Measure the steps at one batch size; return also their memory."""
    device, trainers, peaks = settings.device, {}, {}
    torch.manual_seed(0)
    batches = synthetic_batches(size.batch, size.image, device)

    def ours() -> Callable:
        trainer = build_trainer(our_config(device), settings, size)
        trainer.model.head.label_queue.random_(0, CLASSES)
        trainers['ours'] = trainer
        return repeat(trainer.step, batches, STEPS[device])

    def graphs() -> Callable:
        trainer = build_trainer(graphs_config(), settings, size)
        trainer.model.head.label_queue.random_(0, CLASSES)
        return repeat(trainer.step, batches, STEPS[device])

    def moco() -> Callable:
        trainer = build_trainer(moco_config(device), settings, size)
        return repeat(trainer.step, batches, STEPS[device])

    def published() -> Callable:
        if 'ours' not in trainers:
            ours()
        step = build_published(trainers['ours']).step
        prepared = prepare_batches(trainers['ours'], batches)
        return repeat(lambda x: step(*x), prepared, STEPS[device])

    def build(name: str, make: Callable) -> Callable[[], float]:
        steps = make()
        steps()  # compiles, so that memory is that of a usual step
        if name != GRAPHS:  # whose memory is never given back
            peaks[name] = peak_extra_bytes(steps, device)
        return timed(steps, device)

    makers = {'ours': ours}
    if device == 'cuda' and size.batch <= SMALL:
        makers[GRAPHS] = graphs
    makers[MOCO] = moco
    if size.batch <= SMALL:
        makers['published'] = published
    found = contest(
        {name: partial(build, name, make) for name, make in makers.items()},
        settings.rounds(6),
        budget,
        save=lambda found: save(found, peaks),
    )
    return found, peaks


def _step_results(found: Contest, peaks: dict, batch: int) -> dict[str, dict]:
    return dict(
        ratios=found.ratios(
            {
                f'{other} / ours': (other, 'ours')
                for other in (MOCO, 'published', GRAPHS)
            }
        ),
        seconds=found.spread(),
        images_per_second=found.rates(batch),
        peak_bytes=dict(peaks),
        left_out=found.left_out,
    )


def augment(settings: Any) -> dict[str, Any]:
    """Run the case ``augment``; see ``speed.py``."""
    size, device = sizes_of(settings, SIZES)[-1], settings.device
    batches = synthetic_batches(size.batch, size.image, device)
    # One compiled model for all of them.
    make_trainer = cache(
        lambda: build_trainer(our_config(device), settings, size)
    )

    def read(cfg: Config, **options: Any) -> nn.Module:
        options = cfg.data_preprocessor | options
        return MODELS.build(options).to(device)

    def build(preprocessor: nn.Module) -> Callable[[], float]:
        trainer = make_trainer()

        def train(batch: dict) -> None:
            trainer.model.data_preprocessor = preprocessor
            trainer.step(batch)

        return timed(repeat(train, batches, STEPS[device]), device)

    def build_alone(preprocessor: nn.Module) -> Callable[[], float]:
        views = repeat(
            lambda x: preprocessor(x, training=True), batches, STEPS[device]
        )
        return timed(views, device)

    augmenting = read(our_config(device))
    builders = dict(
        alone=partial(build_alone, augmenting),
        augmenting=partial(build, augmenting),
        normalising=partial(build, read(moco_config('cpu'))),
    )
    if device == 'cuda':
        plain = read(our_config(device), fused=False)
        builders[f'{PLAIN}, alone'] = partial(build_alone, plain)
        builders[PLAIN] = partial(build, plain)

    def results(found: Contest) -> dict[str, Any]:
        return dict(
            what='our step with augmentation on the device, against the same '
            'step that only normalises; and augmentation alone',
            time_method=METHOD,
            **asdict(size),
            ratios=found.ratios(
                {
                    'augmenting / normalising': ('augmenting', 'normalising'),
                    'alone / normalising': ('alone', 'normalising'),
                    'plain operations / normalising': (PLAIN, 'normalising'),
                }
            ),
            seconds=found.spread(),
            left_out=found.left_out,
        )

    found = contest(
        builders,
        settings.rounds(6),
        settings.budget,
        save=lambda found: settings.save(results(found)),
    )
    return results(found)


def scaling(settings: Any) -> dict[str, Any]:
    """Run the case ``scaling``; see ``speed.py``."""
    size, device = sizes_of(settings, SCALING_SIZES)[-1], settings.device
    torch.manual_seed(0)
    shares = (0.0, 1.0) if settings.quick else LABEL_SHARES

    def build(share: float) -> Callable[[], float]:
        trainer = build_trainer(our_config(device), settings, size)
        labels = trainer.model.head.label_queue
        labels.random_(0, CLASSES)
        labels[torch.rand(len(labels)) >= share] = -1
        batches = synthetic_batches(size.batch, size.image, device, share)
        trainers.append(trainer)
        return timed(repeat(trainer.step, batches, STEPS[device]), device)

    def build_batch(batch: int) -> Callable[[], float]:
        batches = synthetic_batches(batch, size.image, device)
        steps = repeat(trainers[-1].step, batches, STEPS[device])
        return timed(steps, device)

    trainers = []
    # Many rounds: a difference of 1 % is looked for, and steps vary by more.
    labeled = contest(
        {share: partial(build, share) for share in shares},
        settings.rounds(45),
        settings.budget.share(2),
    )
    numbers = (4,) if settings.quick else BATCHES[device]
    batched = contest(
        {batch: partial(build_batch, batch) for batch in numbers},
        settings.rounds(9),
        settings.budget.share(2),
    )
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
        ratios=labeled.ratios(
            {f'{100 * x:g} % labels / none': (x, 0.0) for x in shares[1:]}
        ),
        seconds_by_label_share=labeled.spread(),
        images_per_second_by_batch={
            batch: quartiles([batch / x for x in values])
            for batch, values in batched.values.items()
        },
        images_per_second_by_processes=spread_over,
        left_out=labeled.left_out | batched.left_out,
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
    encoder = deepcopy(Encoder(model))
    for module in encoder.modules():
        # What is compiled is the original's.
        vars(module).pop('forward', None)
    published = PublishedUniMoCo(
        encoder, model.head.queue.T, SGD, MOMENTUM, TEMPERATURE
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


def timed(steps: Callable[[], None], device: str) -> Callable[[], float]:
    """Return a function that measures the seconds of one step."""
    return lambda: stopwatch(steps, device) / STEPS[device]


def sizes_of(settings: Any, sizes: dict[str, tuple]) -> list[Size]:
    """Return the shapes to measure, by growing batch; see ``speed.py``."""
    default = (QUICK,) if settings.quick else sizes[settings.device]
    batches = settings.batch or [size.batch for size in default]
    return [replace(default[0], batch=x) for x in sorted(set(batches))]
