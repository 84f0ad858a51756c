"""mmpretrain's own tools/train.py runs the configs unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmpretrain
import torch
from exact_runs import run

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/unimoco/unimoco_resnet18_8xb32-coslr-200e_in1k.py'
CIFAR = 'configs/unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10.py'
DEMO = 'configs/demo/unimoco_resnet18_fmnist-10pct.py'
TRAIN = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'

LOADERS = ('train_dataloader', 'val_dataloader', 'val_cfg.bank_dataloader')
PIPELINE = 'train_dataloader.dataset.dataset.pipeline'
COMMON = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'default_hooks.logger.interval=1',
    'val_cfg.k=3',
    *(f'{loader}.num_workers=0' for loader in LOADERS),
    *(f'{loader}.persistent_workers=False' for loader in LOADERS),
]
NARROW = [
    'model.backbone.stem_channels=8',
    'model.backbone.base_channels=8',
    'model.neck.in_channels=64',
]
OPTIONS = [
    *NARROW,
    'model.head.queue_len=32',
    'train_dataloader.dataset.label_ratio=0.1',
    # Lists are changed by index.
    f'{PIPELINE}.0.scale=32',
    *(f'{loader}.dataset.pipeline.2.crop_size=32' for loader in LOADERS[1:]),
    *(f'{loader}.batch_size=8' for loader in LOADERS),
]
# 120 of the images; 50 to be judged by 100.
DEMO_OPTIONS = [
    'train_dataloader.batch_size=20',
    'val_dataloader.dataset.indices=50',
    'val_cfg.bank_dataloader.dataset.indices=100',
]


def arguments(config, folder, options):
    """Of the tool, for one epoch."""
    options = ['--cfg-options', *COMMON, *options]
    return [str(ROOT / config), '--work-dir', str(folder), *options]


def results(folder):
    """Return what was logged and the checkpoint."""
    scalars = [
        json.loads(line)
        for path in folder.glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    # Before training, and after the epoch.
    steps = [x['step'] for x in scalars if 'knn/top1' in x]
    assert steps == [0, 1]
    path = folder / 'epoch_1.pth'
    return scalars, torch.load(path, weights_only=False)


def test_runs_an_epoch_with_knn(data_roots, tmp_path):
    root = data_roots['ImageNet']
    modules = f'{ROOT}:{os.environ["PYTHONPATH"]}'
    # Elsewhere than in the project: no path may depend on it.
    done = subprocess.run(
        [sys.executable, TRAIN, *arguments(CONFIG, tmp_path, OPTIONS)],
        cwd=tmp_path,
        env=os.environ | dict(PYTHONPATH=modules, IMAGENET_ROOT=root),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scalars, checkpoint = results(tmp_path)
    assert sum('loss' in entry for entry in scalars) == 3
    assert list(tmp_path.glob('best_knn_top1_*.pth'))
    weights = checkpoint['state_dict']
    assert weights['head.queue_ptr'].item() == 24
    # 10 % of the 24 training images keep their label.
    assert (weights['head.label_queue'] >= 0).sum() == 2


def test_runs_the_demo_config(tmp_path):
    images = 'train_dataloader.dataset.dataset.dataset.indices=120'
    options = [*DEMO_OPTIONS, images]
    assert run(TRAIN, *arguments(DEMO, tmp_path, options)) == 0
    scalars, checkpoint = results(tmp_path)
    logged = [entry for entry in scalars if 'loss' in entry]
    # 12 labeled images come five times, 108 others once: 168, of which eight
    # steps take 160.
    assert len(logged) == 8
    assert 'top1_unlabeled' in logged[-1]
    weights = checkpoint['state_dict']
    assert weights['head.queue_ptr'].item() == 160
    known = int((weights['head.label_queue'] >= 0).sum())
    assert 52 <= known <= 60
    # channels_last and the fused optimizer took effect.
    kernel = weights['backbone.layer1.0.conv1.weight']
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    (group,) = checkpoint['optimizer']['param_groups']
    assert bool(group['fused']) == (torch.__version__ >= '2.4')


def test_cifar_without_work_per_image(data_roots, tmp_path, monkeypatch):
    """100 images on the device; 6 steps of 16, then kNN of 20 images."""
    # Imported by the run, since invented images have other checksums.
    (tmp_path / 'invented_cifar.py').write_text(
        'from mmpretrain.datasets import CIFAR10\n'
        'for files in (CIFAR10.train_list, CIFAR10.test_list):\n'
        '    for file in files:\n'
        '        file[1] = None\n'
        "CIFAR10.meta['md5'] = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / 'config.py'
    imports = ['mmunimoco', 'invented_cifar']
    config.write_text(
        f'_base_ = [{str(ROOT / CIFAR)!r}]\n'
        f'custom_imports = dict(imports={imports})\n'
    )
    options = [
        *NARROW,
        'model.head.queue_len=64',
        'train_dataloader.batch_size=16',
    ]
    environment = dict(CIFAR10_ROOT=data_roots['CIFAR10'])
    command = arguments(config, tmp_path, options)
    assert run(TRAIN, *command, env=environment) == 0
    scalars, checkpoint = results(tmp_path)
    assert len([x for x in scalars if 'loss' in x]) == 6
    assert any('knn/top1' in x for x in scalars)
    assert int(checkpoint['state_dict']['head.queue_ptr']) == 96 % 64
    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    assert 'images_on_device: 100 images' in text
    assert 'collated one by one' not in text
