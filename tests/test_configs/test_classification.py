"""The transfer configs: what they say, and that they do it.

Reduced in the runs: data set (tiny, in the real format), image size, batch,
workers, epochs, neighbours. Not reduced: the models, the optimisers.
"""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks/classification'
PATHS = sorted(FOLDER.glob('*.py'))
LINEAR = [path for path in PATHS if '-linear-' in path.name]
SEMI = [path for path in PATHS if '-semi-' in path.name]
KNN = [path for path in PATHS if '-knn_' in path.name]
NAME = re.compile(
    r'(?P<backbone>[a-z0-9-]+)_(?P<gpus>\d+)xb(?P<batch>\d+)-'
    r'(?P<task>linear|semi|knn)(-(?P<schedule>step|cos)lr-(?P<epochs>\d+)e)?'
    r'_(?P<data>in1k|cifar10|cifar100)(-(?P<labels>\d+)pct)?'
)
CLASSES = dict(in1k=1000, cifar10=10, cifar100=100)


def ids(paths):
    return [path.stem for path in paths]


def load(path):
    return Config.fromfile(path, import_custom_modules=False)


def settings(path):
    return NAME.fullmatch(path.stem).groupdict()


def reduce(node):
    """Shrink, in place, what makes a config expensive to try."""
    if isinstance(node, list):
        for item in node:
            reduce(item)
    if not isinstance(node, dict):
        return
    small = dict(
        RandomResizedCrop=dict(scale=32),
        ResizeEdge=dict(scale=36),
        CenterCrop=dict(crop_size=32),
        MoCoV3ViT=dict(img_size=32),
        ExactEpochLoop=dict(max_epochs=1),
        KNNTestLoop=dict(k=(3, 5)),
    )
    node.update(small.get(node.get('type'), {}))
    if 'num_workers' in node:
        node.update(batch_size=8, num_workers=0, persistent_workers=False)
    for item in list(node.values()):
        reduce(item)


@pytest.fixture
def make_runner(data_roots, tmp_path, monkeypatch):
    """Return a function: config path to reduced runner with a checkpoint."""
    for name, root in data_roots.items():
        monkeypatch.setenv(f'{name.upper()}_ROOT', root)

    def make(path, checkpoint=True):
        cfg = Config.fromfile(path)
        reduce(cfg._cfg_dict)
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        # Writing a ResNet-50 takes longer than training it here.
        cfg.default_hooks.checkpoint.update(interval=-1, save_best=None)
        if checkpoint:
            file = pretrained(tmp_path, cfg.model.backbone)
            if cfg.model.backbone.get('init_cfg'):
                cfg.model.backbone.init_cfg.checkpoint = file
            else:
                cfg.load_from = file
        return Runner.from_cfg(cfg)

    return make


def pretrained(folder, backbone):
    """A checkpoint as pre-training leaves it, with more than the backbone."""
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        module = MODELS.build({**backbone, 'init_cfg': None})
        module.init_weights()
    state = {f'backbone.{k}': v for k, v in module.state_dict().items()}
    for key, value in state.items():
        # Statistics that no fresh network has.
        if key.endswith(('running_mean', 'running_var')):
            value.uniform_(0.5, 1.5)
        if key.endswith('num_batches_tracked'):
            value.fill_(7)
    state = {**state, 'head.queue': torch.rand(4, 2), 'neck.a': torch.rand(2)}
    file = folder / 'pretrained.pth'
    torch.save(dict(state_dict=state, meta={}), file)
    return str(file)


def backbone_state(runner):
    state = runner.model.backbone.state_dict()
    return {key: value.clone() for key, value in state.items()}


def stored_state(runner):
    path = Path(runner.work_dir) / 'pretrained.pth'
    state = torch.load(path, weights_only=False)['state_dict']
    prefix = 'backbone.'
    return {
        key[len(prefix) :]: value
        for key, value in state.items()
        if key.startswith(prefix)
    }


def same(left, right):
    assert left.keys() == right.keys()
    return {key for key in left if torch.equal(left[key], right[key])}


class TestEveryConfig:
    @pytest.mark.parametrize('path', PATHS, ids=ids(PATHS))
    def test_is_what_its_name_says(self, path):
        cfg, name = load(path), settings(path)
        classes = CLASSES[name['data']]
        assert cfg.data_preprocessor.num_classes == classes
        data = dict(in1k='ImageNet').get(name['data'], name['data'].upper())
        assert cfg.test_dataloader.dataset.type == data
        depth = dict(resnet50=50, resnet18=18).get(name['backbone'])
        assert cfg.model.backbone.get('depth') == depth
        assert cfg.default_scope == 'mmpretrain'
        assert 'mmunimoco' in cfg.custom_imports.imports
        assert '_scope_' not in str(cfg)
        if name['task'] == 'knn':
            assert cfg.test_cfg.type == 'KNNTestLoop'
            loader = cfg.test_cfg.bank_dataloader
            assert loader.dataset.type == data
        else:
            loader = cfg.train_dataloader
            assert cfg.model.head.num_classes == classes
            assert cfg.train_cfg.max_epochs == int(name['epochs'])
            total = int(name['gpus']) * int(name['batch'])
            assert cfg.auto_scale_lr.base_batch_size == total
            assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'
            assert cfg.model.backbone.init_cfg == dict(
                type='Pretrained', checkpoint='', prefix='backbone.'
            )
        assert loader.batch_size == int(name['batch'])

    def test_ask_for_the_checkpoint(self, make_runner):
        runner = make_runner(LINEAR[0], checkpoint=False)
        with pytest.raises(ValueError, match='init_cfg.checkpoint is empty'):
            runner.train()


class TestLinearProbe:
    @pytest.mark.parametrize('path', LINEAR, ids=ids(LINEAR))
    def test_backbone_is_frozen_to_the_bit(self, path, make_runner):
        runner = make_runner(path)
        lr = load(path).optim_wrapper.optimizer.lr
        assert lr == {'resnet50': 30, 'vit-small-p16': 12}.get(
            settings(path)['backbone'], 30 if 'in1k' in path.name else 5
        )
        runner.train()
        assert runner.iter >= 3
        stored = stored_state(runner)
        assert same(backbone_state(runner), stored) == set(stored)
        assert any('running_var' in key for key in stored) or 'vit' in (
            path.name
        )
        trained = [
            name
            for name, value in runner.model.named_parameters()
            if value.requires_grad
        ]
        assert trained == ['head.fc.weight', 'head.fc.bias']
        assert runner.model.head.fc.bias.abs().max() > 0
        optimizer = runner.optim_wrapper.optimizer
        (group,) = optimizer.param_groups
        assert group['initial_lr'] == lr
        assert (group['momentum'], group['weight_decay']) == (0.9, 0)


class TestFewLabels:
    @pytest.mark.parametrize(
        ('labels', 'backbone_lr', 'head_lr'),
        [('1', 0.02, 5), ('10', 0.01, 0.2)],
    )
    def test_fine_tunes_all_layers_on_the_listed_images(
        self, labels, backbone_lr, head_lr, make_runner, data_roots
    ):
        root = Path(data_roots['ImageNet'])
        names = sorted(path.name for path in root.glob('train/*/*.JPEG'))
        (root / f'{labels}percent.txt').write_text('\n'.join(names[::2]))
        (path,) = [p for p in SEMI if settings(p)['labels'] == labels]
        runner = make_runner(path)
        runner.train()
        dataset = runner.train_dataloader.dataset
        used = [
            Path(dataset.get_data_info(i)['img_path']).name
            for i in range(len(dataset))
        ]
        assert sorted(used) == names[::2]
        rates = {
            name: group['initial_lr']
            for name, group in zip(
                dict(runner.model.named_parameters()),
                runner.optim_wrapper.optimizer.param_groups,
                strict=True,
            )
        }
        for name, rate in rates.items():
            expected = head_lr if name.startswith('head') else backbone_lr
            assert rate == pytest.approx(expected)
        # A BN weight of 1 may move by less than float32 can tell.
        kept = same(backbone_state(runner), stored_state(runner))
        assert not [key for key in kept if not re.search(r'bn\d.weight', key)]

    @pytest.mark.parametrize('path', SEMI, ids=ids(SEMI))
    def test_missing_list_is_named(self, path, make_runner, data_roots):
        file = f'{settings(path)["labels"]}percent.txt'
        (Path(data_roots['ImageNet']) / file).unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError, match=file):
            make_runner(path).train()


@pytest.mark.parametrize('path', KNN, ids=ids(KNN))
def test_knn_of_a_checkpoint(path, make_runner):
    runner = make_runner(path)
    metrics = runner.test()
    names = {'knn/top1', 'knn/top5', 'knn/top1_k5', 'knn/top5_k5'}
    assert names <= set(metrics)
    stored = stored_state(runner)
    assert same(backbone_state(runner), stored) == set(stored)
