"""Pre-training configs take a step, train, validate and keep the best.

Reduced: the data set (tiny, in its real format), images (32x32), batch, queue
(64 keys), neighbours of kNN, workers. Not reduced: backbone, neck, optimizer
and schedule.
"""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from small_configs import dicts_in, shrink

from mmunimoco.engine import StepOptionsHook

FOLDER = Path(__file__).parents[2] / 'configs'
CIFAR = 'unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10'
# One of each backbone, data set, input path, algorithm and runtime.
NAMES = [
    'unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k-10pct',
    'unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k_published-views',
    'unimoco/unimoco_resnet50_1xb256-coslr-200e_in1k',
    'unimoco/unimoco_resnet18_8xb32-coslr-200e_in1k',
    'unimoco/unimoco_vit-small-p16_8xb128-coslr-300e_in1k',
    CIFAR,
    f'{CIFAR}_published-views',
    'mocov2/mocov2_resnet18_1xb512-coslr-200e_cifar10',
    'supcon/supcon_resnet18_1xb512-coslr-200e_cifar10',
]
SMALL = dict(
    RandomResizedCrop=dict(scale=32),
    LoadTwoCrops=dict(scale=32),
    ResizeEdge=dict(scale=36),
    CenterCrop=dict(crop_size=32),
    MoCoV3ViT=dict(img_size=32),
    UniMoCoHead=dict(queue_len=64),
    KNNValLoop=dict(k=(3, 5)),
    KNNTestLoop=dict(k=(3, 5)),
)


@pytest.fixture
def make_runner(data_roots, tmp_path):
    """Return a function that builds the runner of a reduced config."""

    def make(name, **changes):
        cfg = Config.fromfile(FOLDER / f'{name}.py')
        # A group of split BN needs two values for each channel.
        batch_size = 16 if 'SplitBatchNorm' in str(cfg) else 8
        shrink(cfg, SMALL, batch_size=batch_size)
        for node in dicts_in(cfg._cfg_dict):
            if node.get('type') in data_roots:
                node['data_root'] = data_roots[node['type']]
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        cfg.merge_from_dict(changes)
        return Runner.from_cfg(cfg)

    return make


@pytest.mark.parametrize('name', NAMES, ids=lambda name: Path(name).name)
def test_takes_a_step(name, make_runner):
    runner = make_runner(name)
    loop = runner._train_loop = runner.build_train_loop(runner._train_loop)
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
    before = [p.detach().clone() for p in model.backbone.parameters()]
    batch = next(iter(loop.dataloader))
    logs = model.train_step(batch, optim_wrapper=runner.optim_wrapper)

    assert logs['loss'].isfinite()
    moved = [
        not torch.equal(p, old)
        for p, old in zip(model.backbone.parameters(), before, strict=True)
    ]
    trainable = [p.requires_grad for p in model.backbone.parameters()]
    # A warm-up may start below what float32 resolves for some weights.
    assert any(moved)
    assert all(t for m, t in zip(moved, trainable, strict=True) if m)
    size = len(batch['data_samples'])
    assert head.queue_ptr.item() == size
    given = [
        int(s.get('gt_label', torch.tensor(-1))) for s in batch['data_samples']
    ]
    assert head.label_queue[:size].tolist() == given
    assert (head.label_queue[size:] == -1).all()
    assert len(schedulers) == len(runner.cfg.param_scheduler)


def test_trains_validates_and_keeps_the_best(make_runner, tmp_path):
    runner = make_runner(
        CIFAR.replace('cifar10', 'cifar100'),
        **{'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2},
    )
    runner.train()
    # The cosine follows max_epochs: the second of two epochs has half the lr.
    (group,) = runner.optim_wrapper.optimizer.param_groups
    assert group['lr'] == pytest.approx(0.5 * group['initial_lr'])
    assert list(tmp_path.glob('best_knn_top1_*.pth'))
    metrics = runner.test()
    assert set(metrics) == {
        'knn/top1',
        'knn/top5',
        'knn/top1_k5',
        'knn/top5_k5',
    }


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_amp_step(dtype, make_runner):
    changes = {
        'optim_wrapper.dtype': dtype,
        'optim_wrapper.loss_scale': 'dynamic',
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
    }
    runner = make_runner(CIFAR, **changes)
    for hook in runner.hooks:
        if isinstance(hook, StepOptionsHook) and dtype != 'bfloat16':
            hook.compile = False  # takes a minute
    runner.train()
    hub = runner.message_hub
    assert math.isfinite(hub.get_scalar('train/loss').current())
