"""The linear probe on two processes: a frozen backbone under DDP."""

from pathlib import Path

import torch
from ddp_helpers import run_ddp
from mmengine.config import Config
from mmpretrain.registry import MODELS

from mmunimoco.engine.launch import build_runner

CONFIG = Path(__file__).parents[2] / 'configs/demo/resnet18_linear_fmnist.py'


def _load_config():
    cfg = Config.fromfile(CONFIG)
    cfg.train_dataloader.update(
        batch_size=20, num_workers=0, persistent_workers=False
    )
    cfg.train_dataloader.dataset.indices = 80
    cfg.val_dataloader.dataset.indices = 41
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    return cfg


def _probe_rank(rank, world_size, folder, checkpoint):
    """Train as tools/train.py does; return weights, steps and accuracy."""
    cfg = _load_config()
    cfg.work_dir, cfg.launcher = str(folder), 'pytorch'
    cfg.model.backbone.init_cfg.checkpoint = checkpoint
    runner = build_runner(cfg)
    runner.train()
    accuracy = runner.message_hub.get_scalar('val/accuracy/top1').current()
    return runner.model.module.state_dict(), runner.iter, accuracy


def test_ranks_train_the_same_classifier_on_a_frozen_backbone(tmp_path):
    torch.manual_seed(0)
    settings = {**_load_config().model.backbone, 'init_cfg': None}
    backbone = MODELS.build(settings)
    backbone.init_weights()
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    checkpoint = str(tmp_path / 'pretrained.pth')
    torch.save(dict(state_dict=state), checkpoint)

    ranks = run_ddp(_probe_rank, 2, tmp_path, tmp_path / 'work', checkpoint)
    (first, steps, accuracy), (second, *others) = ranks
    # 80 images, 20 a step on each of two ranks.
    assert steps == 2 and others == [steps, accuracy]
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    # BN statistics included.
    for name, value in state.items():
        assert torch.equal(first[name], value), name
    assert first['head.fc.weight'].abs().max() > 0
    assert not torch.equal(first['head.fc.bias'], torch.zeros(10))
