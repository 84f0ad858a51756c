"""A config is what its name says, and nothing else differs from its base.

Names are ``{algo}_{backbone}_{gpus}xb{batch}-{schedule}_{data}[-{labels}]``
and, for an ablation, ``_{change}``.
"""

import inspect
import re
from functools import cache
from pathlib import Path

import mmpretrain
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

import mmunimoco  # noqa: F401

ROOT = Path(__file__).parents[2]
FOLDERS = ('unimoco', 'unimoco/ablations', 'mocov2', 'supcon')
PATHS = [p for f in FOLDERS for p in sorted(ROOT.glob(f'configs/{f}/*.py'))]
ABLATIONS = sorted(ROOT.glob('configs/unimoco/ablations/*.py'))

NAME = re.compile(
    r'(?P<algo>[a-z0-9]+)_(?P<backbone>[a-z0-9-]+)_(?P<gpus>\d+)xb'
    r'(?P<batch>\d+)-coslr-(?P<epochs>\d+)e_(?P<data>[a-z0-9]+)'
    r'(-(?P<labels>\d+)pct)?(_(?P<change>[a-z0-9.-]+))?'
)
DATASETS = {'in1k': 'ImageNet', 'cifar10': 'CIFAR10', 'cifar100': 'CIFAR100'}
NUM_CLASSES = {'in1k': 1000, 'cifar10': 10, 'cifar100': 100}
BACKBONES = {
    'resnet50': dict(depth=50),
    'resnet18': dict(depth=18),
    'vit-small-p16': dict(arch='mocov3-small', patch_size=16),
}
LOSSES = {
    'unimoco': dict(type='UniConLoss'),
    'mocov2': dict(type='InfoNCELoss'),
    'supcon': dict(type='SupConLoss', reduction_position='out'),
}
SUPCON = {'type': 'SupConLoss'}
# What a name calls the change of an ablation: the key and its value.
CHANGES = {
    'loss-unicon-mean': (
        'model.head.loss',
        {'type': 'UniConLoss', 'positive_reduction': 'mean'},
    ),
    'loss-supcon-out': (
        'model.head.loss',
        {**SUPCON, 'reduction_position': 'out'},
    ),
    'loss-supcon-in': (
        'model.head.loss',
        {**SUPCON, 'reduction_position': 'in'},
    ),
    'loss-infonce': ('model.head.loss', {'type': 'InfoNCELoss'}),
    'momentum-cosine': ('model.end_momentum', 0.0),
    'in-batch-positives': ('model.head.in_batch_positives', True),
    'exclude-own-keys': ('model.head.exclude_own_keys', True),
    'ignore-unlabeled-keys': ('model.head.ignore_unlabeled_keys', True),
    'no-shuffle-bn': ('model.shuffle_bn', False),
}
NUMBERED_CHANGES = {
    'queue': 'model.head.queue_len',
    'tau': 'model.head.temperature',
    'positive-tau': 'model.head.positive_temperature',
    'momentum': 'model.momentum',
}
LABEL_RATIO = 'train_dataloader.dataset.label_ratio'


@cache
def load(path):
    """Resolve a config, once: no test may change what it gets."""
    return Config.fromfile(path, import_custom_modules=False)


def parse(path):
    match = NAME.fullmatch(path.stem)
    assert match, f'{path.name} does not follow the naming scheme'
    return match.groupdict()


def flatten(value, prefix=''):
    """Return {dotted key: leaf} of nested dicts and lists."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {prefix: value}
    flat = {}
    for key, item in items:
        flat.update(flatten(item, f'{prefix}.{key}' if prefix else str(key)))
    return flat


def told_change(name):
    """Return (key, value) that the name of an ablation announces."""
    change = name['change']
    if change is None:
        return LABEL_RATIO, int(name['labels']) / 100
    if change in CHANGES:
        return CHANGES[change]
    kind, number = change.rsplit('-', 1)
    return NUMBERED_CHANGES[kind], float(number)


def all_ids(paths):
    return [path.stem for path in paths]


@pytest.mark.parametrize('path', PATHS, ids=all_ids(PATHS))
class TestEveryConfig:
    def test_batch_and_schedule_are_those_of_the_name(self, path):
        cfg, name = load(path), parse(path)
        gpus, batch = int(name['gpus']), int(name['batch'])
        epochs = int(name['epochs'])
        assert cfg.train_dataloader.batch_size == batch
        assert cfg.auto_scale_lr.base_batch_size == gpus * batch
        assert cfg.train_cfg.max_epochs == epochs
        last = cfg.param_scheduler[-1]
        assert last.type == 'CosineAnnealingLR'
        assert last.end == epochs
        assert last.begin + last.T_max == epochs

    def test_data_and_labels_are_those_of_the_name(self, path):
        cfg, name = load(path), parse(path)
        labels = name['labels']
        if labels is None:  # all, but for MoCo v2, which has no use for them
            labels = 0 if name['algo'] == 'mocov2' else 100
        train = cfg.train_dataloader.dataset
        assert train.type == 'PartialLabels'
        assert train.label_ratio == int(labels) / 100
        assert train.dataset.split == 'train'
        used = [
            train.dataset,
            cfg.val_dataloader.dataset,
            cfg.test_dataloader.dataset,
            cfg.val_cfg.bank_dataloader.dataset,
            cfg.test_cfg.bank_dataloader.dataset,
        ]
        assert {d.type for d in used} == {DATASETS[name['data']]}
        assert len({d.data_root for d in used}) == 1
        assert cfg.model.head.num_classes == NUM_CLASSES[name['data']]

    def test_model_is_that_of_the_name(self, path):
        cfg, name = load(path), parse(path)
        assert cfg.model.type == 'UniMoCo'
        wanted = BACKBONES[name['backbone']]
        assert {k: cfg.model.backbone[k] for k in wanted} == wanted
        if not (name['change'] or '').startswith('loss'):
            assert cfg.model.head.loss == LOSSES[name['algo']]
        split_bn = 'SplitBatchNorm' in str(cfg.model)
        assert split_bn == (name['gpus'] == '1')

    def test_registers_the_plugin(self, path):
        cfg = load(path)
        assert cfg.custom_imports == dict(
            imports=['mmunimoco'], allow_failed_imports=False
        )
        assert cfg.default_scope == 'mmpretrain'

    def test_keeps_the_best_knn_checkpoint(self, path):
        cfg = load(path)
        assert cfg.default_hooks.checkpoint.save_best == 'knn/top1'
        assert cfg.val_evaluator.prefix == 'knn'
        assert cfg.train_cfg.val_interval < cfg.train_cfg.max_epochs

    def test_optimizer_can_be_turned_into_amp(self, path):
        # mmpretrain's --amp exchanges exactly this type.
        assert load(path).optim_wrapper.type == 'OptimWrapper'

    def test_has_no_key_without_effect(self, path):
        """A forgotten ``label_ratio = 0.1`` would train with all labels."""
        cfg = load(path)
        known = set(inspect.signature(Runner.__init__).parameters)
        pipelines = {'view_pipeline', 'train_pipeline', 'test_pipeline'}
        extra = set(cfg) - known - pipelines
        assert extra <= {'custom_imports', 'vis_backends'}
        train = cfg.train_dataloader.dataset.dataset.pipeline
        assert cfg.train_pipeline == train
        assert cfg.val_dataloader.dataset.pipeline == cfg.test_pipeline
        views = [s.transforms[0] for s in train if s.type == 'MultiView']
        assert cfg.view_pipeline in (views or [None])


@pytest.mark.parametrize('path', ABLATIONS, ids=all_ids(ABLATIONS))
def test_ablation_changes_the_one_thing_it_is_named_after(path):
    text = path.read_text()
    base = (path.parent / re.search(r"_base_ = '(.+)'", text)[1]).resolve()
    assert base.parent == path.parents[1]
    name = parse(path)
    key, value = told_change(name)
    before = flatten(load(base).to_dict())
    after = flatten(load(path).to_dict())
    differing = dict(before.items() ^ after.items())
    assert differing
    assert {k for k in differing if f'{k}.'.startswith(f'{key}.')} == set(
        differing
    )
    node = load(path)
    for part in key.split('.'):
        node = node[part]
    assert node == value
    if name['change']:
        assert path.stem == f'{base.stem}_{name["change"]}'


def test_published_settings():
    """The numbers of the paper's runs, apart from the base they come from."""
    cfg = load(
        ROOT / 'configs/unimoco/unimoco_resnet50_8xb32-coslr-800e_in1k.py'
    )
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4
    )
    assert cfg.model.momentum == 0.001
    assert cfg.model.head.queue_len == 65536
    assert cfg.model.head.temperature == 0.2
    neck = cfg.model.neck
    assert (neck.in_channels, neck.hid_channels, neck.out_channels) == (
        2048,
        2048,
        128,
    )


def test_views_are_those_of_mmpretrains_mocov2():
    folder = Path(mmpretrain.__file__).parent / '.mim/configs/_base_/datasets'
    theirs = load(folder / 'imagenet_bs32_mocov2.py')
    ours = load(
        ROOT / 'configs/unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k.py'
    )
    assert ours.train_pipeline == theirs.train_pipeline
    assert ours.data_preprocessor == theirs.data_preprocessor


def test_data_root_follows_the_environment(monkeypatch):
    path = ROOT / 'configs/unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k.py'
    assert load(path).val_dataloader.dataset.data_root == 'data/imagenet/'
    monkeypatch.setenv('IMAGENET_ROOT', '/somewhere/in1k')
    cfg = load.__wrapped__(path)
    for data in (
        cfg.train_dataloader.dataset.dataset,
        cfg.val_dataloader.dataset,
        cfg.val_cfg.bank_dataloader.dataset,
    ):
        assert data.data_root == '/somewhere/in1k'


FAST = sorted(ROOT.glob('configs/unimoco/*_fast.py'))


@pytest.mark.parametrize('path', FAST, ids=all_ids(FAST))
def test_fast_differs_in_how_views_are_made_alone(path):
    base = path.with_name(path.name.replace('_fast', ''))
    before = flatten(load(base).to_dict())
    after = flatten(load(path).to_dict())
    differing = dict(before.items() ^ after.items())
    places = ('view_pipeline', 'train_pipeline', 'data_preprocessor.')
    places += ('train_dataloader.dataset.dataset.pipeline', 'custom_hooks.')
    places += ('train_dataloader.collate_fn.',)
    assert differing and all(key.startswith(places) for key in differing)
    # A list is replaced as a whole; none of its hooks may be lost.
    hooks = len(load(base).custom_hooks)
    assert load(path).custom_hooks[:hooks] == load(base).custom_hooks


def test_every_config_of_the_method_has_a_fast_variant():
    folder = ROOT / 'configs/unimoco'
    names = {path.stem for path in folder.glob('*.py')}
    plain = {name for name in names if not name.endswith('_fast')}
    assert names == plain | {f'{name}_fast' for name in plain}


@pytest.mark.parametrize('path', FAST, ids=all_ids(FAST))
def test_fast_views_are_the_published_ones(path):
    base = path.with_name(path.name.replace('_fast', ''))
    crop, *views = load(base).view_pipeline
    fast = load(path)
    augment = MODELS.build(fast.data_preprocessor)
    ours = fast.data_preprocessor.get('crop') or fast.train_pipeline[0]
    assert ours.scale == crop.scale
    assert tuple(ours.crop_ratio_range) == tuple(crop.crop_ratio_range)
    steps = {step.type: step for step in views}
    jitter = steps['RandomApply'].transforms[0]
    names = ('brightness', 'contrast', 'saturation')
    assert augment.jitter[:3] == tuple(
        (1 - jitter[name], 1 + jitter[name]) for name in names
    )
    assert augment.jitter[3] == (-jitter.hue, jitter.hue)
    assert augment.jitter_prob == steps['RandomApply'].prob
    assert augment.gray_prob == steps['RandomGrayscale'].prob
    assert augment.flip_prob == steps['RandomFlip'].prob
    blur = steps.get('GaussianBlur', dict(prob=0.0))
    assert augment.blur_prob == blur['prob']
    if augment.blur_prob:
        assert augment.blur_sigma == tuple(blur['magnitude_range'])
    # mmpretrain's CIFAR data sets give RGB, files are read as BGR.
    assert augment.input_order == ('rgb' if 'cifar' in path.stem else 'bgr')
