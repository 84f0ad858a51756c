"""Every pre-training config builds and takes a step at reduced size.

Reduced: the data set (tiny, in its real format), images (32x32), batch, queue
(64 keys), neighbours of kNN, workers. Not reduced: backbone, neck, optimizer
and schedule.
"""

import gc
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).parents[2]
FOLDERS = ('unimoco', 'unimoco/ablations', 'mocov2', 'supcon')
PATHS = [p for f in FOLDERS for p in sorted(ROOT.glob(f'configs/{f}/*.py'))]
QUEUE = 64


def reduce(node, data_roots, batch_size):
    """Shrink, in place, what makes a config expensive to try."""
    if isinstance(node, list):
        for item in node:
            reduce(item, data_roots, batch_size)
    if not isinstance(node, dict):
        return
    kind = node.get('type')
    if kind in data_roots:
        node.update(data_root=data_roots[kind], serialize_data=False)
    small = dict(
        RandomResizedCrop=('scale', 32),
        LoadTwoCrops=('scale', 32),
        ResizeEdge=('scale', 36),
        CenterCrop=('crop_size', 32),
        MoCoV3ViT=('img_size', 32),
        UniMoCoHead=('queue_len', QUEUE),
        KNNValLoop=('k', (3, 5)),
        KNNTestLoop=('k', (3, 5)),
    )
    if kind in small:
        key, value = small[kind]
        node[key] = value
    if 'num_workers' in node:
        node.update(
            batch_size=batch_size, num_workers=0, persistent_workers=False
        )
    for item in node.values():
        reduce(item, data_roots, batch_size)


@pytest.fixture
def make_runner(data_roots, tmp_path, monkeypatch):
    """Give a function that builds the runner of a reduced config."""

    def make(path, **changes):
        cfg = Config.fromfile(path)
        # A group of split BN needs two values for each channel.
        batch_size = 16 if 'SplitBatchNorm' in str(cfg) else 8
        reduce(cfg._cfg_dict, data_roots, batch_size)
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        cfg.merge_from_dict(changes)
        return Runner.from_cfg(cfg)

    yield make
    # Runners are full of cycles; sixty models would wait for the collector.
    gc.collect()


def weights_of(module):
    return [p.detach().clone() for p in module.parameters()]


def changed(module, before):
    return [
        not torch.equal(p, old)
        for p, old in zip(module.parameters(), before, strict=True)
    ]


@pytest.mark.parametrize('path', PATHS, ids=[p.stem for p in PATHS])
def test_builds_and_takes_a_step(path, make_runner):
    runner = make_runner(path)
    loop = runner.build_train_loop(runner._train_loop)
    runner._train_loop = loop
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.initialize_count_status(
        runner.model, 0, loop.max_iters
    )
    schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    runner._test_loop = runner.build_test_loop(runner._test_loop)
    runner.call_hook('before_run')
    runner.call_hook('before_train')
    model, head = runner.model, runner.model.head
    before = weights_of(model.backbone)
    batch = next(iter(loop.dataloader))
    logs = model.train_step(batch, optim_wrapper=runner.optim_wrapper)

    assert logs['loss'].isfinite()
    moved = changed(model.backbone, before)
    trainable = [p.requires_grad for p in model.backbone.parameters()]
    # A warm-up may start below what float32 resolves for some weights.
    assert any(moved) and not any(
        m and not t for m, t in zip(moved, trainable, strict=True)
    )
    size = len(batch['data_samples'])
    assert head.queue_ptr.item() == size
    given = [
        int(s.get('gt_label', torch.tensor(-1))) for s in batch['data_samples']
    ]
    assert head.label_queue[:size].tolist() == given
    assert (head.label_queue[size:] == -1).all()
    assert len(schedulers) == len(runner.cfg.param_scheduler)


def test_trains_validates_and_keeps_the_best(make_runner, tmp_path):
    name = 'unimoco_resnet18_1xb512-coslr-200e_cifar100'
    runner = make_runner(
        ROOT / f'configs/unimoco/{name}.py',
        **{'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1},
    )
    runner.train()
    assert list(tmp_path.glob('best_knn_top1_*.pth'))
    metrics = runner.test()
    assert set(metrics) == {
        'knn/top1',
        'knn/top5',
        'knn/top1_k5',
        'knn/top5_k5',
    }


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_amp_step(dtype, make_runner):
    name = 'unimoco_resnet18_1xb512-coslr-200e_cifar10'
    runner = make_runner(
        ROOT / f'configs/unimoco/{name}.py',
        **{
            'optim_wrapper.dtype': dtype,
            'optim_wrapper.loss_scale': 'dynamic',
            'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1,
        },
    )
    runner.train()
    hub = runner.message_hub
    assert math.isfinite(hub.get_scalar('train/loss').current())
