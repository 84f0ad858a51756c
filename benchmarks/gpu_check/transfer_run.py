"""Train ten steps of a transfer config as users do, on synthetic data.

``PYTHONPATH=tests python -m benchmarks.gpu_check.transfer_run NAME FOLDER``
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

import mmunimoco

STEPS = 10
ROOT = Path(mmunimoco.__file__).resolve().parents[1]
_COMMON = (
    'log_processor.window_size=1',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.save_last=False',
)
_DETECTION = ('train_cfg.max_epochs=1', 'train_cfg.val_begin=2')
_SEGMENTATION = (
    f'train_cfg.max_iters={STEPS}',
    f'train_cfg.val_begin={STEPS + 1}',
)


@dataclass(frozen=True)
class Case:
    """A config to be run.

    Attributes:
        folder (str): 'mmdetection' or 'mmsegmentation'.
        config (str): Path below that folder of ``configs/benchmarks``.
        data (str): Which data set it needs.
    """

    folder: str
    config: str
    data: str


CASES = {
    'r50-c4': Case(
        'mmdetection', 'coco/mask-rcnn_r50-c4_ms-1x_coco.py', 'coco'
    ),
    'r50-fpn': Case(
        'mmdetection', 'coco/mask-rcnn_r50_fpn_ms-1x_coco.py', 'coco'
    ),
    'fcn': Case(
        'mmsegmentation',
        'voc12aug/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py',
        'voc12aug',
    ),
    'upernet': Case(
        'mmsegmentation',
        'ade20k/upernet_r50_4xb4-80k_ade20k-512x512.py',
        'ade20k',
    ),
}


def config_of(case: Case) -> Path:
    """Path of the config of a case."""
    return ROOT / 'configs' / 'benchmarks' / case.folder / case.config


def options_of(case: Case) -> tuple[str, ...]:
    """What ``--cfg-options`` changes: ten steps, each logged, nothing else."""
    detection = case.folder == 'mmdetection'
    return (*_COMMON, *(_DETECTION if detection else _SEGMENTATION))


def write_data(name: str, folder: Path) -> dict[str, str]:
    """Write images of usual size in the layout of a data set.

    Args:
        name (str): 'coco', 'voc12aug' or 'ade20k'.
        folder (Path): Where to write.

    Returns:
        dict[str, str]: Environment in which the configs find them.
    """
    # The generators of the tests; only a checkout has them.
    from transfer_data.ade20k import write_ade20k
    from transfer_data.coco import write_coco
    from transfer_data.voc12aug import write_voc12aug

    if name == 'coco':  # two images a step
        root = write_coco(folder, (640, 480), train_images=2 * STEPS)
    elif name == 'voc12aug':
        root = write_voc12aug(folder, width=500)
    else:
        root = write_ade20k(folder, width=683)
    return {f'{name.upper()}_ROOT': str(root)}


def write_checkpoint(path: Path) -> None:
    """Write a ResNet-50 with random weights, as pre-training leaves it."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone = MODELS.build(dict(type='ResNet', depth=50))
    backbone.init_weights()
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    torch.save(dict(state_dict=state), path)


def main() -> int:
    name, folder = sys.argv[1], Path(sys.argv[2])
    case = CASES[name]
    checkpoint = folder / 'pretrained.pth'
    write_checkpoint(checkpoint)
    environment = write_data(case.data, folder / 'data')
    script = ROOT / 'tools' / 'benchmarks' / case.folder / 'dist_train.sh'
    command = [
        *('bash', script, config_of(case), checkpoint, '1'),
        *('--work-dir', folder / 'run', '--cfg-options', *options_of(case)),
    ]
    return subprocess.run(
        [str(part) for part in command], env=os.environ | environment
    ).returncode


if __name__ == '__main__':
    sys.exit(main())
