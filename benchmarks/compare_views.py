"""Are representations as good with the fast views as with the published ones?

Short training runs of the CIFAR-10 configs with and without ``_fast``, with
several seeds, scored by kNN. They are small, minutes of one core each: a
narrow ResNet-18, a part of the images.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmcv import imread
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS

from demo.settings import find_config_dir

NAME = 'unimoco_resnet18_1xb512-coslr-200e_cifar10'
CONFIGS = dict(published=f'{NAME}.py', fast=f'{NAME}_fast.py')

NEIGHBOURS = 20  # that vote


@dataclass(frozen=True)
class Size:
    """How large the runs are.

    As in the demo, AdamW and a quick momentum encoder: with the schedule of
    200 epochs nothing is learned in so few steps.
    """

    images: int = 4000
    test_images: int = 2000
    epochs: int = 12
    batch: int = 64
    queue: int = 1024
    channels: int = 16
    lr: float = 1e-3
    momentum: float = 0.01


@DATASETS.register_module()
class FolderInMemory(BaseDataset):
    """Images in class sub-folders, decoded once, RGB as mmpretrain's CIFAR.

    Args:
        folder (str): Has a sub-folder for each class.
        count (int): Images to take, the same share of each class.
        **kwargs: Of ``BaseDataset``.
    """

    def __init__(self, folder: str, count: int, **kwargs) -> None:
        self.folder, self.count = Path(folder), count
        super().__init__(ann_file='', serialize_data=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Decode the images.

        Raises:
            ValueError: If a class has too few images, or there is no class.
        """
        classes = sorted(p for p in self.folder.iterdir() if p.is_dir())
        if not classes or self.count % len(classes):
            raise ValueError(
                f'{self.folder} has {len(classes)} sub-folders (classes), of '
                f'which {self.count} images cannot be taken evenly'
            )
        self._metainfo['classes'] = tuple(path.name for path in classes)
        each = self.count // len(classes)
        found = []
        for label, folder in enumerate(classes):
            paths = sorted(p for p in folder.iterdir() if p.is_file())[:each]
            if len(paths) < each:
                raise ValueError(
                    f'{folder} has {len(paths)} images, {each} are needed'
                )
            found += [
                dict(
                    img=imread(path, channel_order='rgb'),
                    img_path=str(path),
                    gt_label=label,
                )
                for path in paths
            ]
        return found


def build_config(
    views: str, folder: Path, ratio: float, seed: int, size: Size
) -> Config:
    """Reduce a config of CIFAR-10 to a short run.

    Args:
        views (str): 'published' or 'fast'.
        folder (Path): With ``train`` and ``test``, images in class
            sub-folders.
        ratio (float): Share of labels.
        seed (int): Of weights, order and views.
        size (Size): Of the run.

    Returns:
        Config: The same for both kinds of views, but for the views.
    """
    cfg = Config.fromfile(find_config_dir('unimoco') / CONFIGS[views])
    counts = dict(train=size.images, test=size.test_images)
    _replace(cfg._cfg_dict, folder, counts)
    cfg.train_dataloader.batch_size = size.batch
    cfg.train_dataloader.dataset.label_ratio = ratio
    # Half the resolution from the stem on: a quarter of the time.
    cfg.model.backbone.update(
        base_channels=size.channels,
        stem_channels=size.channels,
        strides=(2, 2, 2, 2),
    )
    width = 8 * size.channels
    cfg.model.neck.update(in_channels=width, hid_channels=width)
    cfg.model.head.update(queue_len=size.queue)
    cfg.model.momentum = size.momentum
    cfg.optim_wrapper.optimizer = dict(
        type='AdamW', lr=size.lr, weight_decay=0.05
    )
    cfg.train_cfg.update(max_epochs=size.epochs, val_interval=size.epochs)
    cfg.val_cfg.k = cfg.test_cfg.k = NEIGHBOURS
    cfg.param_scheduler[0].update(T_max=size.epochs, end=size.epochs)
    cfg.default_hooks.checkpoint = None
    cfg.randomness = dict(seed=seed)
    return cfg


def _replace(node: Any, folder: Path, counts: dict[str, int]) -> None:
    """Exchange, in place, the data sets, and load in this process."""
    if isinstance(node, list):
        for item in node:
            _replace(item, folder, counts)
    if not isinstance(node, dict):
        return
    if node.get('type') == 'CIFAR10':
        split = node.pop('split')
        del node['data_root']
        node.update(
            type='FolderInMemory',
            folder=str(folder / split),
            count=counts[split],
        )
    if 'num_workers' in node:
        node.update(num_workers=0, persistent_workers=False, pin_memory=False)
    for item in node.values():
        _replace(item, folder, counts)


def train(cfg: Config, work_dir: Path) -> dict[str, float]:
    """Train and score.

    Returns:
        dict[str, float]: ``knn_top1`` in percent, ``loss`` at the end, and
        ``cpu_seconds``.
    """
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.name}-{time.time_ns()}'
    runner = Runner.from_cfg(cfg)
    start = time.process_time()
    runner.train()
    seconds = time.process_time() - start
    hub = runner.message_hub
    return dict(
        knn_top1=round(hub.get_scalar('val/knn/top1').current(), 3),
        loss=round(hub.get_scalar('train/loss').current(), 5),
        cpu_seconds=round(seconds, 1),
    )


def compare(
    folder: Path,
    ratios: Iterable[float],
    seeds: Iterable[int],
    size: Size,
    work_dir: Path,
    done: list[dict],
    save: Callable[[dict], None],
) -> None:
    """Run what is not done yet, both kinds of views in turn.

    Args:
        folder (Path): See :func:`build_config`.
        ratios (Iterable[float]): Shares of labels.
        seeds (Iterable[int]): Seeds.
        size (Size): Of the runs.
        work_dir (Path): For configs and logs, a folder a run.
        done (list[dict]): Runs of an earlier result; extended.
        save (Callable): Called with the result after each run.
    """
    known = {(run['views'], run['labels'], run['seed']) for run in done}
    for ratio, seed, views in product(ratios, seeds, CONFIGS):
        if (views, ratio, seed) in known:
            continue
        cfg = build_config(views, folder, ratio, seed, size)
        name = f'{views}_{round(100 * ratio)}pct_seed{seed}'
        scores = train(cfg, work_dir / name)
        done.append(dict(views=views, labels=ratio, seed=seed, **scores))
        save(dict(size=asdict(size), summary=summarize(done), runs=done))


def summarize(runs: list[dict]) -> list[dict]:
    """Put runs together, for each share of labels over its whole pairs.

    Args:
        runs (list[dict]): ``views``, ``labels``, ``seed``, ``knn_top1``.

    Returns:
        list[dict]: By share of labels: ``mean`` and ``std`` (of the sample)
        of either kind of views, and of the ``difference`` fast - published
        within a seed; ``n`` seeds.
    """
    rows = []
    for ratio in sorted({run['labels'] for run in runs}):
        scores = {
            views: {
                run['seed']: run['knn_top1']
                for run in runs
                if (run['views'], run['labels']) == (views, ratio)
            }
            for views in CONFIGS
        }
        seeds = sorted(scores['published'].keys() & scores['fast'].keys())
        columns = {v: [scores[v][seed] for seed in seeds] for v in CONFIGS}
        columns['difference'] = [
            fast - published
            for published, fast in zip(
                columns['published'], columns['fast'], strict=True
            )
        ]
        rows.append(
            dict(
                labels=ratio,
                n=len(seeds),
                **{name: _spread(v) for name, v in columns.items() if v},
            )
        )
    return rows


def _spread(values: list[float]) -> dict[str, float]:
    std = stdev(values) if len(values) > 1 else 0.0
    return dict(mean=round(mean(values), 2), std=round(std, 2))
