"""The training step: ours, the published one, and mmpretrain's MoCo v2."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch
from matplotlib.axes import Axes
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper
from torch import Tensor, nn

from benchmarks.gpu_check.training_step import Case as StepCase
from benchmarks.gpu_check.training_step import synthetic_batches

from .case import FAST, MOCO, MOCO_AMP, OURS, PUBLISHED, Case, Settings, Ticker
from .flops import METHOD as FLOPS_METHOD
from .flops import count_flops, matmul_rate
from .formats import draw_rates, in_ratio, in_time
from .peak_memory import peak_extra_bytes
from .published import PublishedUniMoCo
from .timing import METHOD, ratio_spread, spread, time_interleaved
from .trainer import (
    Trainer,
    clean_up,
    fast_config,
    for_cpu,
    moco_config,
    our_config,
    set_images,
    set_model_size,
)

QUEUE_LEN, DIM, CLASSES = 65536, 128, 1000
MOMENTUM, TEMPERATURE = 0.999, 0.2
AUGMENTED = 'ours, fast, augmenting'
SGD = dict(lr=0.03, momentum=0.9, weight_decay=1e-4)
# Steps between two looks at the clock: a GPU runs ahead of the host.
STEPS = dict(cpu=1, cuda=10)


@dataclass(frozen=True)
class Size:
    """Shape of what is timed.

    Attributes:
        batch (int): Images a step.
        image (int): Height and width.
        depth (int): Of the ResNet.
        rounds (int): Rounds that are timed.
        warmup (int): Rounds before.
    """

    batch: int
    image: int = 224
    depth: int = 50
    rounds: int = 10
    warmup: int = 3


SIZES = dict(
    cpu=[Size(8, image=64, rounds=5, warmup=1)],
    cuda=[Size(batch) for batch in (32, 128, 256)],
)
QUICK = [Size(2, image=32, depth=18, rounds=2, warmup=1)]


class Encoder(nn.Module):
    """Backbone and neck as one module that returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck = model.backbone, model.neck

    def forward(self, x: Tensor) -> Tensor:
        return self.neck(self.backbone(x))[0]


def configs(device: str) -> dict[str, Callable[[], Config]]:
    """Configs of all contestants but the published step.

    Without CUDA there is no mixed precision for mmpretrain either.
    """
    if device == 'cpu':
        fast = partial(_on_cpu, fast_config)
        return {OURS: our_config, FAST: fast, MOCO: moco_config}
    return {
        OURS: our_config,
        FAST: fast_config,
        MOCO: moco_config,
        MOCO_AMP: partial(moco_config, amp=True),
    }


def _on_cpu(read: Callable[[], Config]) -> Config:
    return for_cpu(read())


def step_configs(device: str) -> dict[str, Callable[[], Config]]:
    """The same for the step alone, where all normalise and no more.

    That colours, blur and flip are the device's work in the fast path is
    measured apart.
    """
    found = configs(device)
    augmented = found[FAST]
    return found | {
        FAST: partial(_without_augmentation, augmented),
        AUGMENTED: augmented,
    }


def _without_augmentation(read: Callable[[], Config]) -> Config:
    cfg = read()
    cfg.data_preprocessor = our_config().data_preprocessor
    return cfg


def build_trainer(name: str, settings: Settings, size: Size) -> Trainer:
    """Build the training run of a contestant.

    Args:
        name (str): Of :func:`configs`.
        settings (Settings): The benchmark's.
        size (Size): Shape of model and batch.
    """
    cfg = step_configs(settings.device)[name]()
    set_model_size(cfg, size.depth)
    set_images(cfg, settings.images, size.batch, batches=2, workers=0)
    folder = f'{name}-{size.batch}'.replace(' ', '_').replace(',', '')
    return Trainer(cfg, settings.folder / folder)


def build_published(trainer: Trainer) -> PublishedUniMoCo:
    """Build the published step around a copy of the trainer's encoder."""
    model = trainer.model
    step = PublishedUniMoCo(
        Encoder(model), model.head.queue.T, SGD, MOMENTUM, TEMPERATURE
    )
    step.head.label_queue.copy_(model.head.label_queue)
    return step


def published_batches(trainer: Trainer, batches: list[dict]) -> list[tuple]:
    """Normalised float images and labels, as its own data loader gives."""
    found = []
    for batch in batches:
        data = trainer.model.data_preprocessor(deepcopy(batch), training=True)
        labels = torch.cat([x.gt_label for x in data['data_samples']])
        found.append((*data['inputs'], labels.to(data['inputs'][0].device)))
    return found


def measure(
    size: Size, settings: Settings, tick: Callable[[], Any]
) -> dict[str, Any]:
    """Time a step of every contestant.

    Args:
        size (Size): Shape of model and batch.
        settings (Settings): The benchmark's.
        tick (Callable): Called after each round.

    Returns:
        dict: ``batch``, ``image``, ``depth``; ``flops`` of a step;
        ``matmul_flops_per_second`` by precision; ``contestants``, see
        :func:`describe`; ``ratios``, see :func:`compare`.
    """
    device = settings.device
    torch.manual_seed(0)
    names = list(step_configs(device))
    trainers = {name: build_trainer(name, settings, size) for name in names}
    shape = StepCase(size.batch, image_size=size.image)
    batches = synthetic_batches(shape, device, CLASSES)
    for name in (OURS, FAST, AUGMENTED):
        trainers[name].model.head.label_queue.random_(0, CLASSES)
    published = build_published(trainers[OURS])
    count = STEPS[device]
    steps = {
        name: repeat(trainer.step, batches, count)
        for name, trainer in trainers.items()
    }
    steps[PUBLISHED] = repeat(
        lambda batch: published.step(*batch),
        published_batches(trainers[OURS], batches),
        count,
    )
    flops = count_flops(lambda: trainers[OURS].step(batches[0]))
    seconds = time_interleaved(
        steps, settings.repeats(size.rounds), device, size.warmup, tick
    )
    seconds = {
        name: [elapsed / count for elapsed in values]
        for name, values in seconds.items()
    }
    precisions = {name: precision(x) for name, x in trainers.items()}
    rates = {
        dtype: matmul_rate(device, getattr(torch, dtype), repeats=10)
        for dtype in sorted({*precisions.values(), 'float32'})
    }
    return dict(
        batch=size.batch,
        image=size.image,
        depth=size.depth,
        flops=flops,
        matmul_flops_per_second=rates,
        contestants={
            name: describe(
                values,
                size.batch,
                flops,
                precisions.get(name, 'float32'),
                rates,
            )
            | dict(peak_bytes=peak_extra_bytes(steps[name], device))
            for name, values in seconds.items()
        },
        ratios=compare(seconds),
    )


def precision(trainer: Trainer) -> str:
    """Dtype that a run computes its products in."""
    wrapper = trainer.runner.optim_wrapper
    if not isinstance(wrapper, AmpOptimWrapper):
        return 'float32'
    dtype = wrapper.cast_dtype or torch.float16
    return str(dtype).removeprefix('torch.')


def describe(
    seconds: list[float],
    batch: int,
    flops: int,
    dtype: str,
    rates: dict[str, dict],
) -> dict[str, Any]:
    """Seconds, images a second and share of the measured matmul rate."""
    achieved = flops / spread(seconds)['median']
    return dict(
        seconds=spread(seconds),
        images_per_second=spread([batch / x for x in seconds]),
        precision=dtype,
        flop_utilisation=round(achieved / rates[dtype]['median'], 4),
    )


def repeat(
    step: Callable[[Any], Any], batches: list, count: int
) -> Callable[[], None]:
    """Make a function of a step on the next batch, ``count`` times."""
    following = cycle(batches)

    def steps() -> None:
        for _ in range(count):
            step(next(following))

    return steps


def compare(seconds: dict[str, list[float]]) -> dict[str, dict]:
    """How many times as fast ours are as each of the others.

    Augmenting is compared with the same step without.
    """
    others = [n for n in seconds if n not in (OURS, FAST, AUGMENTED)]
    ratios = {
        f'{ours} / {other}': ratio_spread(seconds[other], seconds[ours])
        for ours in (OURS, FAST)
        for other in others
    }
    pair = f'{AUGMENTED} / {FAST}'
    return ratios | {pair: ratio_spread(seconds[FAST], seconds[AUGMENTED])}


def run(
    settings: Settings, tell: Callable[[float, str], None]
) -> dict[str, Any]:
    """Measure all batch sizes; see :class:`Case`."""
    sizes = QUICK if settings.quick else SIZES[settings.device]
    rounds = (s.warmup + settings.repeats(s.rounds) for s in sizes)
    ticker = Ticker(tell, sum(rounds))
    cases = []
    for size in sizes:
        ticker.text = f'batch {size.batch}'
        try:
            cases.append(measure(size, settings, ticker))
        except torch.cuda.OutOfMemoryError:
            # What fits is still worth having, but something has to.
            if size is sizes[0]:
                raise
            cases.append(
                dict(batch=size.batch, skipped='too little GPU memory')
            )
        clean_up(settings.device)
    return dict(
        what='from uint8 images on the device to updated weights, with the '
        "config's hooks; the published step gets normalised float images, "
        'and has no shuffle. On a CPU the fast path has neither mixed '
        'precision nor compiled encoders',
        labels='all images and all keys of the queue labeled',
        steps_between_looks_at_the_clock=STEPS[settings.device],
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        time_method=METHOD,
        flop_method=FLOPS_METHOD,
        cases=cases,
    )


def rows(result: dict) -> list[tuple[str, str, str, str]]:
    """Rows of the table: ours and ours fast against each other contestant."""
    lines = []
    for case in result['cases']:
        if 'skipped' in case:
            lines.append((f'batch {case["batch"]}', case['skipped'], '', ''))
            continue
        size = f'batch {case["batch"]} at {case["image"]}'
        times = {
            name: in_time(values['seconds'])
            for name, values in case['contestants'].items()
        }
        for pair, ratio in case['ratios'].items():
            ours, other = pair.split(' / ')
            lines.append(
                (
                    f'{size}: {ours}, times as fast as {other}',
                    times[ours],
                    times[other],
                    in_ratio(ratio),
                )
            )
    return lines


def draw(axes: Axes, result: dict) -> None:
    """Draw images a second of the largest batch that was measured."""
    case = [case for case in result['cases'] if 'skipped' not in case][-1]
    draw_rates(
        axes,
        {
            name: values['images_per_second']
            for name, values in case['contestants'].items()
        },
        f'Training step, ResNet-{case["depth"]}, batch {case["batch"]} at '
        f'{case["image"]}',
    )


CASE = Case(
    name='step',
    title='training step',
    seconds=dict(cpu=45, cuda=180),
    run=run,
    rows=rows,
    draw=draw,
)
