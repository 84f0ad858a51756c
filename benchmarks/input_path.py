"""Case ``input``: from JPEG files to batches of two views, on one core."""

from typing import Any

from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from .measure import METHOD, quartiles, ratio
from .published import PublishedViews
from .trainer import epoch_rate, moco_config, our_config, read_images

BATCH = 16
IMAGES = dict(cpu=96, cuda=240)  # per round
# Ours is faster, so it reads the images several times per round.
TIMES = {'ours': 6, 'mmpretrain MoCo v2': 1, 'published': 1}
ROUNDS = 9


def input_path(settings: Any) -> dict[str, Any]:
    """Run the case; see ``speed.py``."""
    init_default_scope('mmpretrain')
    # As in training: no OpenCV threads in a worker.
    set_multi_processing(mp_start_method='fork', opencv_num_threads=0)
    count = 2 * BATCH if settings.quick else IMAGES[settings.device]
    loaders = build_loaders(settings, count)
    rounds = settings.rounds(ROUNDS)
    rates = {name: [] for name in loaders}
    # One epoch of one loader at a time, so that its worker has its own core.
    for index in range(1 + rounds):
        for name, loader in loaders.items():
            rate = epoch_rate(loader, BATCH, 1, lambda batch: None, 'cpu')
            if index:
                rates[name].append(rate)
    return dict(
        what='images per second of one data loader worker (one core): read, '
        'decode, two views of 224 x 224, collate, send to the main process; '
        'ours leaves colour, blur, flip and normalisation to the device',
        time_method=METHOD,
        batch=BATCH,
        images=count,
        ratios={
            f'ours / {name}': ratio(rates['ours'], values)
            for name, values in rates.items()
            if name != 'ours'
        },
        images_per_second={
            name: quartiles(values) for name, values in rates.items()
        },
    )


def build_loaders(settings: Any, count: int) -> dict[str, DataLoader]:
    """Build one data loader of one worker for each contestant.

    Args:
        settings (Settings): See ``speed.py``.
        count (int): Images of an epoch, times :data:`TIMES`.
    """
    images = settings.image_paths()[:count]
    loaders = {}
    for name, cfg in (
        ('ours', our_config('cpu')),
        ('mmpretrain MoCo v2', moco_config('cpu')),
    ):
        batches = TIMES[name] * count // BATCH
        read_images(cfg, images, BATCH, batches, workers=1)
        loaders[name] = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    loaders['published'] = DataLoader(
        PublishedViews(images, TIMES['published'] * count),
        BATCH,
        num_workers=1,
        persistent_workers=True,
        drop_last=True,
    )
    return loaders
