"""End to end: from JPEG files, by a real data loader, to updated weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes

from .case import FAST, MOCO, MOCO_AMP, OURS, Case, Settings, Ticker
from .formats import draw_rates, in_rate, in_ratio
from .step_case import configs
from .timing import METHOD, ratio_spread, spread
from .trainer import (
    Trainer,
    clean_up,
    rate_of_epoch,
    set_images,
    set_model_size,
    set_view_size,
)

PREFETCH = 2  # batches that torch's workers load in advance, each


@dataclass(frozen=True)
class Size:
    """Shape of what is timed.

    Attributes:
        batch (int): Images a step.
        image (int): Height and width.
        depth (int): Of the ResNet.
        batches (int): Steps of a round that are timed.
        rounds (int): Rounds that are timed.
    """

    batch: int = 256
    image: int = 224
    depth: int = 50
    batches: int = 20
    rounds: int = 3


SIZES = dict(
    cpu=Size(8, image=64, batches=6),
    cuda=Size(),
)
QUICK = Size(2, image=32, depth=18, batches=2, rounds=2)


def build_trainer(name: str, settings: Settings, size: Size) -> Trainer:
    """Build the training run of a contestant, with its own data loader."""
    cfg = configs(settings.device)[name]()
    set_model_size(cfg, size.depth)
    batches = _skipped(settings) + size.batches
    set_images(
        cfg, settings.images, size.batch, batches, workers=settings.workers
    )
    dataset = cfg.train_dataloader.dataset.dataset
    set_view_size(dataset.pipeline, size.image)
    folder = f'end2end-{name}'.replace(' ', '_').replace(',', '')
    return Trainer(cfg, settings.folder / folder)


def _skipped(settings: Settings) -> int:
    """Batches that were loaded before the first step was done."""
    return 1 + PREFETCH * settings.workers


class Contestant:
    """A training run, measured with its data loader and without.

    Args:
        name (str): Of :func:`configs`.
        settings (Settings): The benchmark's.
        size (Size): Shape of model and batch.
    """

    def __init__(self, name: str, settings: Settings, size: Size) -> None:
        self.trainer = build_trainer(name, settings, size)
        self.settings, self.size = settings, size
        batch = next(iter(self.trainer.loader))
        self.batch = self.trainer.model.data_preprocessor.cast_data(batch)

    def rate(self) -> float:
        """Images per second from files to weights."""
        return self._measure(self.trainer.loader, _skipped(self.settings))

    def step_rate(self) -> float:
        """Images per second on a batch that is on the device already."""
        return self._measure([self.batch] * (self.size.batches + 1), 1)

    def _measure(self, batches: Any, skip: int) -> float:
        return rate_of_epoch(
            batches,
            self.size.batch,
            skip,
            self.trainer.step,
            self.settings.device,
        )


def run(
    settings: Settings, tell: Callable[[float, str], None]
) -> dict[str, Any]:
    """Measure every contestant; see :class:`Case`."""
    size = QUICK if settings.quick else SIZES[settings.device]
    rounds = settings.repeats(size.rounds)
    names = list(configs(settings.device))
    ticker = Ticker(tell, (1 + rounds) * len(names))
    torch.manual_seed(0)
    contestants = {name: Contestant(name, settings, size) for name in names}
    rates, steps = ({name: [] for name in names} for _ in range(2))
    for index in range(1 + rounds):
        for name, contestant in contestants.items():
            ticker.text = name
            rate, step = contestant.rate(), contestant.step_rate()
            if index:
                rates[name].append(rate)
                steps[name].append(step)
            ticker()
    del contestants
    clean_up(settings.device)
    others = [name for name in (MOCO, MOCO_AMP) if name in rates]
    return dict(
        what='JPEG files through the data loader of each config to updated '
        'weights, hooks included; the images are unlabeled',
        time_method=METHOD,
        batch=size.batch,
        image=size.image,
        depth=size.depth,
        workers=settings.workers,
        images_per_second={n: spread(x) for n, x in rates.items()},
        step_alone_images_per_second={n: spread(x) for n, x in steps.items()},
        share_of_step_rate={
            name: ratio_spread(rates[name], steps[name]) for name in names
        },
        ratios={
            f'{ours} / {other}': ratio_spread(rates[ours], rates[other])
            for ours in (OURS, FAST)
            for other in others
        },
    )


def rows(result: dict) -> list[tuple[str, str, str, str]]:
    """Rows of the table: ours against mmpretrain's, then against the step."""
    rates = result['images_per_second']
    steps = result['step_alone_images_per_second']
    lines = []
    for pair, ratio in result['ratios'].items():
        ours, other = pair.split(' / ')
        lines.append(
            (
                f'{ours}, times {other}',
                in_rate(rates[ours]),
                in_rate(rates[other]),
                in_ratio(ratio),
            )
        )
    for name, share in result['share_of_step_rate'].items():
        lines.append(
            (
                f'{name}, share of its step alone',
                in_rate(rates[name]),
                in_rate(steps[name]),
                in_ratio(share),
            )
        )
    return lines


def draw(axes: Axes, result: dict) -> None:
    """Draw images a second of each contestant."""
    draw_rates(
        axes,
        result['images_per_second'],
        f'JPEG to weights, loaders: {result["workers"]}, batch '
        f'{result["batch"]} at {result["image"]}',
    )


CASE = Case(
    name='end2end',
    title='from JPEG files to updated weights',
    seconds=dict(cpu=50, cuda=240),
    run=run,
    rows=rows,
    draw=draw,
)
