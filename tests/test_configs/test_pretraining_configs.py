"""Pre-training configs: names, ablations, tables of overrides, views.

Names are ``{algo}_{backbone}_{gpus}xb{batch}-{schedule}_{data}[-{labels}]``
and, for a variant, ``_{change}``.
"""

import re
from functools import cache
from operator import attrgetter
from pathlib import Path

import mmpretrain
import pytest
from mmengine.config import Config, DictAction
from mmengine.runner import LogProcessor
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS, MODELS
from small_configs import differing_keys, skip_init

import mmunimoco  # noqa: F401

ROOT = Path(__file__).parents[2]
FOLDERS = ('unimoco', 'unimoco/ablations', 'mocov2', 'supcon')
PATHS = [p for f in FOLDERS for p in sorted(ROOT.glob(f'configs/{f}/*.py'))]
ABLATIONS = sorted(ROOT.glob('configs/unimoco/ablations/*.py'))
IMAGENET = ROOT / 'configs/unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k.py'
CIFAR = ROOT / 'configs/unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10.py'

NAME = re.compile(
    r'(?P<algo>[a-z0-9]+)_(?P<backbone>[a-z0-9-]+)_(?P<gpus>\d+)xb'
    r'(?P<batch>\d+)-coslr-(?P<epochs>\d+)e_(?P<data>[a-z0-9]+(-10k)?)'
    r'(-(?P<labels>\d+)pct)?(_(?P<change>[a-z0-9.-]+))?'
)
DATA = {
    'in1k': ('ImageNet', 1000),
    'cifar10': ('CIFAR10', 10),
    'cifar10-10k': ('NpzImages', 10),  # a part of it, in one file
    'cifar100': ('CIFAR100', 100),
}
BACKBONES = {
    'resnet50': dict(depth=50),
    'resnet18': dict(depth=18),
    'vit-small-p16': dict(arch='mocov3-small', patch_size=16),
}
LOSSES = {
    'unimoco': 'UniConLoss',
    'mocov2': 'InfoNCELoss',
    'supcon': 'SupConLoss',
}
# A row of a README: | what | [text](config.py) | `key=value key=value` |
OVERRIDE = re.compile(r'^\|[^|]*\| \[[^]]*\]\(([^)]+\.py)\) \| `([^`]+)` \|$')


@cache
def load(path):
    """Resolve a config once; tests must not change it."""
    return Config.fromfile(path, import_custom_modules=False)


def differing(one, other):
    """Return the dotted keys in which two configs differ."""
    return differing_keys(one.to_dict(), other.to_dict())


@pytest.mark.parametrize('path', PATHS, ids=[p.stem for p in PATHS])
def test_config_is_what_its_name_says(path):
    cfg, match = load(path), NAME.fullmatch(path.stem)
    assert match, f'{path.name} does not follow the naming scheme'
    gpus, batch, epochs = (int(match[k]) for k in ('gpus', 'batch', 'epochs'))
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.train_cfg.max_epochs == epochs
    # MoCo v2 has no use for labels.
    default = 0 if match['algo'] == 'mocov2' else 100
    labels = int(match['labels'] or default)
    assert cfg.train_dataloader.dataset.label_ratio == labels / 100
    kind, num_classes = DATA[match['data']]
    used = [
        cfg.train_dataloader.dataset.dataset,
        cfg.val_dataloader.dataset,
        cfg.test_dataloader.dataset,
        cfg.val_cfg.bank_dataloader.dataset,
        cfg.test_cfg.bank_dataloader.dataset,
    ]
    assert {d.type for d in used} == {kind}
    assert len({d.get('data_root') or d.ann_file for d in used}) == 1
    splits = [d.split for d in used]
    assert splits[0] == splits[3] == splits[4] == 'train'
    assert splits[1] == splits[2] != 'train'
    assert cfg.model.head.num_classes == num_classes
    wanted = BACKBONES[match['backbone']]
    assert {k: cfg.model.backbone[k] for k in wanted} == wanted
    if not (match['change'] or '').startswith('loss'):
        assert cfg.model.head.loss.type == LOSSES[match['algo']]
    assert ('SplitBatchNorm' in str(cfg.model)) == (gpus == 1)


@pytest.mark.parametrize('path', ABLATIONS, ids=[p.stem for p in ABLATIONS])
def test_ablation_changes_one_thing(path):
    base = (
        path.parent / re.search(r"_base_ = '(.+)'", path.read_text())[1]
    ).resolve()
    assert path.stem.startswith(f'{base.stem}_')
    places = {
        key.rpartition('.')[0] if '.loss.' in key else key
        for key in differing(load(base), load(path))
    }
    assert len(places) == 1


def read_overrides():
    """Return (config, override) of each row of the tables in READMEs."""
    rows = []
    for page in sorted(ROOT.glob('configs/**/README.md')):
        for line in page.read_text().splitlines():
            match = OVERRIDE.match(line)
            if match and '=' in match[2]:
                rows.append(((page.parent / match[1]).resolve(), match[2]))
    return rows


OVERRIDES = read_overrides()


class TenClasses(BaseDataset):
    """Names and labels of a hundred images in ten classes."""

    def load_data_list(self):
        return [dict(img_path=f'{i}.jpg', gt_label=i % 10) for i in range(100)]


def test_tables_are_found():
    assert len(OVERRIDES) > 20


def built_value(model, key):
    """Return the attribute of a built model that a config key sets."""
    name = key.removeprefix('model.').replace('head.loss', 'head.loss_module')
    if name == 'momentum':
        name = 'encoder_k.momentum'
    if name.endswith('.type'):
        return type(attrgetter(name.removesuffix('.type'))(model)).__name__
    return attrgetter(name)(model)


def labeled_share(dataset):
    """Return the share of images with a label that PartialLabels leaves."""
    dataset = DATASETS.build({**dataset, 'dataset': TenClasses(ann_file='')})
    labels = [dataset.get_data_info(i).get('gt_label') for i in range(100)]
    return sum(label not in (None, -1) for label in labels) / 100


@pytest.mark.parametrize(
    ('path', 'override'),
    OVERRIDES,
    ids=[f'{p.stem}:{o}' for p, o in OVERRIDES],
)
def test_override_of_a_table_takes_effect(path, override):
    changes = {}
    for item in override.split():
        key, _, value = item.partition('=')
        changes[key] = DictAction._parse_iterable(value)
    before, cfg = load(path), Config.fromfile(path)
    cfg.merge_from_dict(changes)
    assert differing(before, cfg) == set(changes)
    in_model = [key for key in changes if key.startswith('model.')]
    if in_model:
        with skip_init():
            model = MODELS.build(cfg.model)
        for key in in_model:
            assert built_value(model, key) == changes[key]
    ratio = changes.get('train_dataloader.dataset.label_ratio')
    if ratio is not None:
        assert labeled_share(cfg.train_dataloader.dataset) == ratio


def test_published_settings():
    cfg = load(IMAGENET)
    optimizer = dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4)
    assert cfg.optim_wrapper.optimizer == optimizer
    assert cfg.model.momentum == 0.001
    head, neck = cfg.model.head, cfg.model.neck
    assert (head.queue_len, head.temperature) == (65536, 0.2)
    widths = (neck.in_channels, neck.hid_channels, neck.out_channels)
    assert widths == (2048, 2048, 128)


def test_own_key_is_weighted_on_small_images_alone():
    """Off where results are published, on where it won."""
    paths = [p for p in PATHS if p.stem.startswith('unimoco_')]
    paths.append(ROOT / 'configs/own_data/unimoco_resnet18_small-images.py')
    found = set()
    for path in paths:
        loss = load(path).model.head.loss
        small = '_in1k' not in path.stem
        found.add((small, loss.get('own_key_weight', 1)))
    assert found == {(False, 1), (True, 'balanced')}


def published(path):
    return path.with_stem(f'{path.stem}_published-views')


def test_published_views_are_those_of_mmpretrains_mocov2():
    folder = Path(mmpretrain.__file__).parent / '.mim/configs/_base_/datasets'
    theirs, ours = (
        load(folder / 'imagenet_bs32_mocov2.py'),
        load(published(IMAGENET)),
    )
    first, *rest = ours.train_dataloader.dataset.dataset.pipeline
    assert first.type == 'CheckedLoadImageFromFile'
    assert theirs.train_pipeline[0].type == 'LoadImageFromFile'
    assert rest == theirs.train_pipeline[1:]
    assert ours.data_preprocessor == theirs.data_preprocessor


@pytest.mark.parametrize('path', [IMAGENET, CIFAR], ids=['imagenet', 'cifar'])
def test_default_differs_from_published_in_views_and_precision(path):
    places = (
        'data_preprocessor.',
        'train_dataloader.dataset.dataset.pipeline.',
        'train_dataloader.collate_fn.',
        'custom_hooks.',
        'default_hooks.runtime_info.',
        'model_wrapper_cfg.',
        'optim_wrapper.dtype',
    )
    found = differing(load(path), load(published(path)))
    assert found and all(key.startswith(places) for key in found)
    # A list is replaced as a whole; no hook may be lost.
    hooks = load(published(path)).custom_hooks
    assert load(path).custom_hooks[: len(hooks)] == hooks


@pytest.mark.parametrize('path', [IMAGENET, CIFAR], ids=['imagenet', 'cifar'])
def test_default_views_are_the_published_ones(path):
    cfg = load(path)
    pipeline = load(published(path)).train_dataloader.dataset.dataset.pipeline
    (multi_view,) = (s for s in pipeline if s.type == 'MultiView')
    crop, *views = multi_view.transforms[0]
    augment = MODELS.build(cfg.data_preprocessor)
    first = cfg.train_dataloader.dataset.dataset.pipeline[0]
    ours = cfg.data_preprocessor.get('crop') or first
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
    assert augment.input_order == ('bgr' if path == IMAGENET else 'rgb')


def test_data_root_follows_the_environment(monkeypatch):
    assert load(IMAGENET).val_dataloader.dataset.data_root == 'data/imagenet/'
    monkeypatch.setenv('IMAGENET_ROOT', '/somewhere/in1k')
    cfg = load.__wrapped__(IMAGENET)
    for data in (
        cfg.train_dataloader.dataset.dataset,
        cfg.val_dataloader.dataset,
        cfg.val_cfg.bank_dataloader.dataset,
    ):
        assert data.data_root == '/somewhere/in1k'


def test_what_a_batch_measures_is_logged_as_a_mean():
    pattern = LogProcessor(**load(CIFAR).log_processor).mean_pattern
    means = (
        *('loss', 'time', 'data_time', 'grad_norm', 'top1_labeled'),
        *('top1_unlabeled', 'positives_per_labeled_query'),
        *('positive_similarity', 'negative_similarity'),
    )
    # Scores of all images, and states.
    others = ('knn/top1', 'knn/top1_k200', 'accuracy/top1', 'memory', 'lr')
    others += ('labeled_queue_share', 'propagated_queue_share')
    # FeatureMonitorHook's: measured once a log line.
    others += ('positive_similarity_labeled', 'alignment_unlabeled')
    assert all(pattern.search(name) for name in means)
    assert not any(pattern.search(name) for name in others)
