"""mmpretrain's own tools/train.py runs the configs unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmpretrain
import torch

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/unimoco/unimoco_resnet18_8xb32-coslr-200e_in1k-10pct.py'
TRAIN = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'

LOADERS = ('train_dataloader', 'val_dataloader', 'val_cfg.bank_dataloader')
PIPELINE = 'train_dataloader.dataset.dataset.pipeline'
OPTIONS = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'model.head.queue_len=32',
    'default_hooks.logger.interval=1',
    'val_cfg.k=3',
    # Lists are changed by index: of the pipeline, of the views, of the steps.
    f'{PIPELINE}.1.transforms.0.0.scale=32',
    *(f'{loader}.dataset.pipeline.2.crop_size=32' for loader in LOADERS[1:]),
    *(f'{loader}.batch_size=8' for loader in LOADERS),
    *(f'{loader}.num_workers=0' for loader in LOADERS),
    *(f'{loader}.persistent_workers=False' for loader in LOADERS),
]


def test_runs_an_epoch_with_knn(data_roots, tmp_path):
    command = [sys.executable, str(TRAIN), str(ROOT / CONFIG)]
    command += ['--work-dir', str(tmp_path), '--cfg-options', *OPTIONS]
    environment = dict(
        os.environ,
        PYTHONPATH=str(ROOT),
        IMAGENET_ROOT=data_roots['ImageNet'],
    )
    # Elsewhere than in the project: no path may depend on it.
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    scalars = [
        json.loads(line)
        for path in tmp_path.glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    assert sum('loss' in entry for entry in scalars) == 3
    assert sum('knn/top1' in entry for entry in scalars) == 1
    assert list(tmp_path.glob('best_knn_top1_*.pth'))
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    weights = checkpoint['state_dict']
    assert weights['head.queue_ptr'].item() == 24
    # 10 % of the 24 training images keep their label.
    assert (weights['head.label_queue'] >= 0).sum() == 2
