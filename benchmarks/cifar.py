"""Case ``cifar``: the CIFAR-10 config, training and kNN evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from .contest import Contest, contest
from .measure import METHOD, stopwatch
from .trainer import ROOT, Trainer, epoch_rate, unfused

CONFIG = ROOT / 'configs/unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10.py'
LARGE = dict(train=50_000, test=10_000, batch=512, val_batch=500)
# On a CPU, where a step of 512 takes half a minute.
SMALL = dict(train=96, test=32, batch=16, val_batch=16, channels=8)
# A goal on one H100: 200 epochs in six minutes.
GOAL = 28_000


def cifar(settings: Any) -> dict[str, Any]:
    """Run the case; see ``speed.py``."""
    device = settings.device
    small = device == 'cpu' or settings.quick
    counts = SMALL if small else LARGE
    batch, trainers = counts['batch'], []

    def build_training() -> Callable[[], float]:
        data = settings.folder / 'cifar.npz'
        write_images(data, counts)
        cfg = our_cifar_config(device, data, counts, settings.workers)
        trainer = Trainer(cfg, settings.run_folder(), validate=True)
        trainers.append(trainer)
        return lambda: epoch_rate(
            trainer.loader, batch, 2, trainer.step, device
        )

    def build_validation() -> Callable[[], float]:
        return lambda: stopwatch(trainers[0].validate, device)

    def results(found: Contest) -> dict[str, Any]:
        spread = found.spread()
        rate = spread.get('training', {}).get('median')
        return dict(
            what='the CIFAR-10 pre-training config on images of noise: '
            'images/s of an epoch of training, hooks included, and seconds of '
            'its kNN evaluation (features of bank and queries, neighbours)',
            time_method=METHOD,
            batch=batch,
            train_images=counts['train'],
            test_images=counts['test'],
            narrow=small,
            ratios={f'training / {GOAL} images/s': round(rate / GOAL, 4)}
            if rate
            else {},
            images_per_second={
                k: v for k, v in spread.items() if k == 'training'
            },
            seconds={k: v for k, v in spread.items() if k == 'kNN'},
            left_out=found.left_out,
        )

    found = contest(
        dict(training=build_training, kNN=build_validation),
        settings.rounds(3),
        settings.budget,
        warmup=0,  # epochs start before their clock does
        save=lambda found: settings.save(results(found)),
    )
    return results(found)


def our_cifar_config(
    device: str, data: Path, counts: dict[str, int], workers: int
) -> Config:
    """Read the config and let it read a ``.npz`` of images.

    Args:
        device (str): On 'cpu' what needs CUDA is switched off.
        data (Path): See :func:`write_images`.
        counts (dict): Sizes of the batches and, to train a narrow network,
            its number of channels.
        workers (int): Data loader processes; at most the config's.
    """
    cfg = Config.fromfile(CONFIG)
    if device == 'cpu':
        unfused(cfg)
    _read_npz(cfg._cfg_dict, str(data), workers)
    cfg.train_dataloader.batch_size = counts['batch']
    for loader in (cfg.val_dataloader, cfg.val_cfg.bank_dataloader):
        loader.batch_size = counts['val_batch']
    if 'channels' in counts:
        width = counts['channels']
        cfg.model.backbone.update(base_channels=width, stem_channels=width)
        cfg.model.neck.update(in_channels=8 * width, hid_channels=8 * width)
        cfg.val_cfg.k = 5
    return cfg


def _read_npz(node: Any, data: str, workers: int) -> None:
    """Replace every CIFAR-10 in place, and limit the processes."""
    if isinstance(node, list | tuple):
        for item in node:
            _read_npz(item, data, workers)
    if not isinstance(node, dict):
        return
    if node.get('type') == 'CIFAR10':
        del node['data_root']
        node.update(type='NpzImages', ann_file=data)
    if 'num_workers' in node:
        node['num_workers'] = min(node['num_workers'], workers)
    for item in node.values():
        _read_npz(item, data, workers)


def write_images(path: Path, counts: dict[str, int]) -> None:
    """Write noise in the format of CIFAR-10, for ``NpzImages``."""
    generator = np.random.default_rng(0)
    arrays = dict(classes=np.array([f'class_{i}' for i in range(10)]))
    for split in ('train', 'test'):
        shape = (counts[split], 32, 32, 3)
        arrays[f'{split}_images'] = generator.integers(0, 256, shape, np.uint8)
        arrays[f'{split}_labels'] = np.arange(counts[split]) % 10
    np.savez(path, **arrays)
