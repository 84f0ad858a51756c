"""The input path: from JPEG files to batches of two views."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from .case import FAST, MOCO, PUBLISHED, Case, Settings, Ticker
from .formats import draw_rates, in_rate, in_ratio
from .images import find_images, link_images
from .published_views import PublishedViews
from .timing import METHOD, ratio_spread, spread
from .trainer import fast_config, moco_config, rate_of_epoch, set_images

BATCH = 16
# Images a round; ours, being quicker, reads them several times.
IMAGES = dict(cpu=96, cuda=240)
TIMES = {FAST: 6, MOCO: 1, PUBLISHED: 1}
ROUNDS = dict(cpu=9, cuda=9)


def build_loaders(images: Path, count: int) -> dict[str, DataLoader]:
    """Build the loaders, of one worker each.

    Args:
        images (Path): Folder of photographs.
        count (int): Images that a loader of ``TIMES`` 1 gives in an epoch.

    Returns:
        dict[str, DataLoader]: By contestant.
    """
    loaders = {
        name: _loader_of(cfg, images, TIMES[name] * count // BATCH)
        for name, cfg in ((FAST, fast_config()), (MOCO, moco_config()))
    }
    loaders[PUBLISHED] = DataLoader(
        PublishedViews(find_images(images), TIMES[PUBLISHED] * count),
        BATCH,
        num_workers=1,
        persistent_workers=True,
        drop_last=True,
    )
    return loaders


def _loader_of(cfg: Config, images: Path, batches: int) -> DataLoader:
    set_images(cfg, images, BATCH, batches, workers=1)
    cfg.train_dataloader.pin_memory = False
    return Runner.build_dataloader(cfg.train_dataloader, seed=0)


def run(
    settings: Settings, tell: Callable[[float, str], None]
) -> dict[str, Any]:
    """Measure how many images a second one core prepares; see :class:`Case`.

    One epoch of one loader at a time, so that it has its core to itself.
    """
    init_default_scope('mmpretrain')
    # As in training: no threads below a worker.
    set_multi_processing(mp_start_method='fork', opencv_num_threads=0)
    count = 2 * BATCH if settings.quick else IMAGES[settings.device]
    images = link_images(settings.images, count, settings.folder / 'input')
    loaders = build_loaders(images, count)
    rounds = settings.repeats(ROUNDS[settings.device])
    ticker = Ticker(tell, 1 + rounds)
    rates = {name: [] for name in loaders}
    for index in range(1 + rounds):
        for name, loader in loaders.items():
            rate = rate_of_epoch(loader, BATCH, 1, lambda batch: None, 'cpu')
            if index:
                rates[name].append(rate)
        ticker()
    ratios = {
        name: ratio_spread(rates[FAST], rates[name])
        for name in rates
        if name != FAST
    }
    return dict(
        throughput_ratio=ratios[MOCO]['median'],
        throughput_ratio_quartiles=[ratios[MOCO][q] for q in ('q1', 'q3')],
        what='images per second of one data loader worker, which is one '
        'core: read, decode, two views of 224 x 224, collate, hand over to '
        'the main process; ours leaves colour, blur, flip and normalisation '
        'to the device. Ours without the fast path has the pipeline of '
        'mmpretrain MoCo v2',
        time_method=METHOD,
        batch=BATCH,
        images=count,
        images_per_second={
            name: spread(values) for name, values in rates.items()
        },
        ratios=ratios,
    )


def rows(result: dict) -> list[tuple[str, str, str, str]]:
    """Rows of the table: ours against each other loader."""
    rates = result['images_per_second']
    return [
        (
            f'images per second and core, times {name}',
            in_rate(rates[FAST]),
            in_rate(rates[name]),
            in_ratio(ratio),
        )
        for name, ratio in result['ratios'].items()
    ]


def draw(axes: Axes, result: dict) -> None:
    """Draw images a second of each loader."""
    draw_rates(axes, result['images_per_second'], 'Input path, one core')


CASE = Case(
    name='input',
    title='input path',
    seconds=dict(cpu=50, cuda=60),
    run=run,
    rows=rows,
    draw=draw,
    headlines=('throughput_ratio',),
)
