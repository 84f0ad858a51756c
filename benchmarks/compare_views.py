r"""Compare the published views with the fast ones by short training runs.

FILE.npz has train_images, train_labels, test_images and test_labels of
CIFAR-10 (see the dataset NpzImages). Both configs train a narrow ResNet-18 on
a part of the images, with several seeds, and are scored by kNN. Runs that the
output has already are not repeated.

python -m benchmarks.compare_views --data FILE.npz \
    --out docs/benchmarks/views_cifar10.json
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.utils import register_all_modules

from mmunimoco.utils.atomic import write_json
from mmunimoco.utils.versions import describe_environment

CONFIGS = Path(__file__).resolve().parents[1] / 'configs/unimoco'
NAME = 'unimoco_resnet18_1xb512-coslr-200e_cifar10'
VIEWS = dict(published=f'{NAME}_published-views.py', fast=f'{NAME}.py')


@dataclass(frozen=True)
class Size:
    """Size of the runs; AdamW and a fast momentum encoder suit few steps."""

    images: int = 4000
    test_images: int = 2000
    epochs: int = 12
    batch: int = 64
    queue: int = 1024
    channels: int = 16
    lr: float = 1e-3
    momentum: float = 0.01


def build_config(
    views: str, data: Path, label_ratio: float, seed: int, size: Size
) -> Config:
    """Reduce a config of CIFAR-10 to a short run.

    Args:
        views (str): Key of :data:`VIEWS`; all that differs between configs.
        data (Path): The images.
        label_ratio (float): Share of labels.
        seed (int): Of weights, order and views.
        size (Size): Of the run.
    """
    cfg = Config.fromfile(CONFIGS / VIEWS[views])
    counts = dict(train=size.images, test=size.test_images)
    _replace_data(cfg._cfg_dict, data.resolve(), counts)
    cfg.train_dataloader.batch_size = size.batch
    cfg.train_dataloader.dataset.label_ratio = label_ratio
    # Strides of 2 from the stem on: a quarter of the time.
    cfg.model.backbone.update(
        base_channels=size.channels,
        stem_channels=size.channels,
        strides=(2, 2, 2, 2),
    )
    width = 8 * size.channels
    cfg.model.neck.update(in_channels=width, hid_channels=width)
    cfg.model.head.queue_len = size.queue
    cfg.model.momentum = size.momentum
    # Bit by bit repeatable on a CPU, whatever the runtime of the config.
    cfg.optim_wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=size.lr, weight_decay=0.05),
    )
    for hook in cfg.custom_hooks:
        if hook.get('compile'):
            hook.compile = False
    cfg.train_cfg.update(max_epochs=size.epochs, val_interval=size.epochs)
    cfg.val_cfg.k = cfg.test_cfg.k = 20
    cfg.param_scheduler[0].update(T_max=size.epochs, end=size.epochs)
    cfg.default_hooks.checkpoint = None
    cfg.randomness = dict(seed=seed)
    return cfg


def _replace_data(node: Any, data: Path, counts: dict[str, int]) -> None:
    """Replace every CIFAR-10 in place, and load in the main process."""
    if isinstance(node, (list, tuple)):
        for item in node:
            _replace_data(item, data, counts)
    if not isinstance(node, dict):
        return
    if node.get('type') == 'CIFAR10':
        split = node['split']
        pipeline = node.get('pipeline', [])
        node.clear()
        node.update(
            type='NpzImages',
            ann_file=str(data),
            split=split,
            indices=counts[split],
            pipeline=pipeline,
        )
    if 'num_workers' in node:
        node.update(num_workers=0, persistent_workers=False, pin_memory=False)
    for item in node.values():
        _replace_data(item, data, counts)


def train(cfg: Config, work_dir: Path) -> dict[str, float]:
    """Train; return kNN accuracy in percent, last loss and CPU seconds."""
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


def summarize(runs: list[dict]) -> list[dict]:
    """Return mean and sample standard deviation by share of labels.

    Of both kinds of views, and of the difference fast - published within a
    seed. Seeds that only one of them has are left out.
    """
    rows = []
    for share in sorted({run['labels'] for run in runs}):
        scores = {
            views: {
                run['seed']: run['knn_top1']
                for run in runs
                if (run['views'], run['labels']) == (views, share)
            }
            for views in VIEWS
        }
        seeds = sorted(scores['published'].keys() & scores['fast'].keys())
        columns = {v: [scores[v][seed] for seed in seeds] for v in VIEWS}
        columns['difference'] = [
            fast - published
            for published, fast in zip(*columns.values(), strict=True)
        ]
        spread = {
            name: dict(
                mean=round(mean(values), 2),
                std=round(stdev(values), 2) if len(values) > 1 else 0.0,
            )
            for name, values in columns.items()
            if values
        }
        rows.append(dict(labels=share, n=len(seeds), **spread))
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.compare_views',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--data', required=True, type=Path)
    parser.add_argument('--out', required=True, type=Path)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--labels', nargs='+', type=float, default=[0.0, 1.0])
    parser.add_argument('--images', type=int, default=Size.images)
    parser.add_argument('--test-images', type=int, default=Size.test_images)
    parser.add_argument('--epochs', type=int, default=Size.epochs)
    parser.add_argument('--batch', type=int, default=Size.batch)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/compare_views')
    )
    args = parser.parse_args(argv)
    size = Size(args.images, args.test_images, args.epochs, args.batch)
    runs = []
    if args.out.exists():
        result = json.loads(args.out.read_text())
        if result['size'] != asdict(size):
            parser.error(
                f'{args.out} has runs of {result["size"]}: name another --out '
                'or the same sizes'
            )
        runs = result['runs']
    done = {(run['labels'], run['seed'], run['views']) for run in runs}
    header = describe_environment()
    register_all_modules()
    # Both kinds of views in turn, so that pairs are complete early.
    for share, seed, views in product(args.labels, args.seeds, VIEWS):
        if (share, seed, views) in done:
            continue
        cfg = build_config(views, args.data, share, seed, size)
        name = f'{views}_{round(100 * share)}pct_seed{seed}'
        scores = train(cfg, args.work_dir / name)
        runs.append(dict(views=views, labels=share, seed=seed, **scores))
        summary = summarize(runs)
        write_json(
            args.out,
            dict(**header, size=asdict(size), summary=summary, runs=runs),
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
