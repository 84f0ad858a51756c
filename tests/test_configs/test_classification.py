"""The classification configs: settings, and that they train and evaluate.

Reduced in the runs: data set (tiny, in its real format), image size, batch,
workers, epochs, neighbours. Not reduced: models, optimisers.
"""

import re
from pathlib import Path

import pytest
import torch
from ddp_helpers import run_ddp
from mmengine.config import Config
from mmengine.runner import Runner
from small_configs import differing_tensors, save_pretrained, shrink

from mmunimoco.engine.launch import build_runner

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks/classification'
PATHS = {path.stem: path for path in sorted(FOLDER.glob('*.py'))}
LINEAR_R50 = PATHS['resnet50_8xb32-linear-steplr-100e_in1k']
# One of each backbone and data set; learning rate and batch it is for.
LINEAR = {
    'resnet18_8xb32-linear-steplr-100e_in1k': 30,
    'resnet18_1xb512-linear-steplr-100e_cifar100': 5,
    'vit-small-p16_8xb128-linear-coslr-90e_in1k': 12,
}
KNN = [
    'resnet50_8xb256-knn_in1k',
    'resnet18_1xb512-knn_cifar10',
    'vit-small-p16_8xb256-knn_in1k',
]
SEMI = 'resnet50_8xb32-semi-steplr-20e_in1k-{}pct'
NAME = re.compile(
    r'(?P<backbone>[a-z0-9-]+)_(?P<gpus>\d+)xb(?P<batch>\d+)-'
    r'(?P<task>linear|semi|knn)(-(?P<schedule>step|cos)lr-(?P<epochs>\d+)e)?'
    r'_(?P<data>in1k|cifar10|cifar100)(-(?P<labels>\d+)pct)?'
)
DATA = dict(
    in1k=('ImageNet', 1000),
    cifar10=('CIFAR10', 10),
    cifar100=('CIFAR100', 100),
)
DEPTH = {'resnet50': 50, 'resnet18': 18, 'vit-small-p16': None}
SMALL = dict(
    RandomResizedCrop=dict(scale=32),
    ResizeEdge=dict(scale=36),
    CenterCrop=dict(crop_size=32),
    MoCoV3ViT=dict(img_size=32),
    ExactEpochLoop=dict(max_epochs=1),
    KNNTestLoop=dict(k=(3, 5)),
)


@pytest.mark.parametrize('path', PATHS.values(), ids=PATHS)
def test_config_is_what_its_name_says(path):
    cfg, name = Config.fromfile(path), NAME.fullmatch(path.stem)
    kind, classes = DATA[name['data']]
    assert cfg.data_preprocessor.num_classes == classes
    assert cfg.test_dataloader.dataset.type == kind
    assert cfg.model.backbone.get('depth') == DEPTH[name['backbone']]
    if name['task'] == 'knn':
        loader = cfg.test_cfg.bank_dataloader
        assert loader.dataset.type == kind
    else:
        loader = cfg.train_dataloader
        assert cfg.model.head.num_classes == classes
        assert cfg.train_cfg.max_epochs == int(name['epochs'])
        total = int(name['gpus']) * int(name['batch'])
        assert cfg.auto_scale_lr.base_batch_size == total
        assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'
    assert loader.batch_size == int(name['batch'])


def test_published_settings_of_the_linear_probe():
    cfg = Config.fromfile(LINEAR_R50)
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=30.0, momentum=0.9, weight_decay=0.0
    )
    (schedule,) = cfg.param_scheduler
    assert (schedule.milestones, schedule.gamma) == ([60, 80], 0.1)


@pytest.fixture
def make_runner(data_roots, tmp_path, monkeypatch):
    """Return a function: config path to reduced runner with a checkpoint."""
    for name, root in data_roots.items():
        monkeypatch.setenv(f'{name.upper()}_ROOT', root)

    def make(path, checkpoint=True):
        cfg = Config.fromfile(path)
        shrink(cfg, SMALL, batch_size=8)
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        # Writing a ResNet-50 takes longer than training it here.
        cfg.default_hooks.checkpoint.update(interval=-1, save_best=None)
        file = tmp_path / 'pretrained.pth'
        stored = save_pretrained(file, cfg.model.backbone)
        if not cfg.model.backbone.get('init_cfg'):
            cfg.load_from = str(file)
        elif checkpoint:
            cfg.model.backbone.init_cfg.checkpoint = str(file)
        runner = Runner.from_cfg(cfg)
        runner.stored = stored
        return runner

    return make


def test_checkpoint_is_required(make_runner):
    runner = make_runner(PATHS[[*LINEAR][0]], checkpoint=False)
    with pytest.raises(ValueError, match='init_cfg.checkpoint is empty'):
        runner.train()


@pytest.mark.parametrize(('name', 'lr'), LINEAR.items())
def test_linear_probe_leaves_the_backbone_alone(name, lr, make_runner):
    runner = make_runner(PATHS[name])
    runner.train()
    assert runner.iter >= 3
    backbone = runner.model.backbone.state_dict()
    assert not differing_tensors(backbone, runner.stored)
    trained = [
        name
        for name, value in runner.model.named_parameters()
        if value.requires_grad
    ]
    assert trained == ['head.fc.weight', 'head.fc.bias']
    assert runner.model.head.fc.bias.abs().max() > 0
    (group,) = runner.optim_wrapper.optimizer.param_groups
    assert group['initial_lr'] == lr
    assert (group['momentum'], group['weight_decay']) == (0.9, 0)


@pytest.mark.parametrize(
    ('labels', 'backbone_lr', 'head_lr'), [(1, 0.02, 5), (10, 0.01, 0.2)]
)
def test_fine_tuning_trains_all_layers_on_the_listed_images(
    labels, backbone_lr, head_lr, make_runner, data_roots
):
    root = Path(data_roots['ImageNet'])
    names = sorted(path.name for path in root.glob('train/*/*.JPEG'))
    (root / f'{labels}percent.txt').write_text('\n'.join(names[::2]))
    runner = make_runner(PATHS[SEMI.format(labels)])
    runner.train()
    dataset = runner.train_dataloader.dataset
    used = [
        Path(dataset.get_data_info(i)['img_path']).name
        for i in range(len(dataset))
    ]
    assert sorted(used) == names[::2]
    for (name, _), group in zip(
        runner.model.named_parameters(),
        runner.optim_wrapper.optimizer.param_groups,
        strict=True,
    ):
        lr = head_lr if name.startswith('head') else backbone_lr
        assert group['initial_lr'] == pytest.approx(lr)
    backbone = runner.model.backbone.state_dict()
    kept = backbone.keys() - differing_tensors(backbone, runner.stored)
    # A weight of a norm may move by less than float32 can represent.
    assert not [key for key in kept if not re.search(r'bn\d.weight', key)]


def test_missing_label_list_is_named(make_runner, data_roots):
    (Path(data_roots['ImageNet']) / '1percent.txt').unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match='1percent.txt'):
        make_runner(PATHS[SEMI.format(1)]).train()


@pytest.mark.parametrize('name', KNN)
def test_knn_of_a_checkpoint(name, make_runner):
    runner = make_runner(PATHS[name])
    metrics = runner.test()
    expected = {'knn/top1', 'knn/top5', 'knn/top1_k5', 'knn/top5_k5'}
    assert expected <= set(metrics)
    backbone = runner.model.backbone.state_dict()
    assert not differing_tensors(backbone, runner.stored)


def _probe_config():
    cfg = Config.fromfile(ROOT / 'configs/demo/resnet18_linear_fmnist.py')
    shrink(cfg, {}, batch_size=20)
    cfg.train_dataloader.dataset.indices = 80
    cfg.val_dataloader.dataset.indices = 41
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    return cfg


def _probe_rank(rank, world_size, folder, checkpoint):
    """Train as tools/train.py does; return weights, steps and accuracy."""
    cfg = _probe_config()
    cfg.work_dir, cfg.launcher = str(folder), 'pytorch'
    cfg.model.backbone.init_cfg.checkpoint = checkpoint
    runner = build_runner(cfg)
    runner.train()
    accuracy = runner.message_hub.get_scalar('val/accuracy/top1').current()
    return runner.model.module.state_dict(), runner.iter, accuracy


def test_two_ranks_train_one_classifier_on_a_frozen_backbone(tmp_path):
    checkpoint = tmp_path / 'pretrained.pth'
    stored = save_pretrained(checkpoint, _probe_config().model.backbone)
    ranks = run_ddp(
        _probe_rank, 2, tmp_path, tmp_path / 'work', str(checkpoint)
    )
    (first, steps, accuracy), (second, *others) = ranks
    # 80 images, 20 a step on each of two ranks.
    assert steps == 2 and others == [steps, accuracy]
    assert not differing_tensors(first, second)
    prefix = 'backbone.'
    backbone = {
        key.removeprefix(prefix): value
        for key, value in first.items()
        if key.startswith(prefix)
    }
    assert not differing_tensors(backbone, stored)
    assert first['head.fc.weight'].abs().max() > 0
    assert not torch.equal(first['head.fc.bias'], torch.zeros(10))
