"""The segmentation configs: settings, models and data at their real size."""

import inspect
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS as PRETRAINING_MODELS
from small_configs import differing_keys
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from transfer_data.ade20k import write_ade20k
from transfer_data.voc12aug import write_voc12aug

mmseg = pytest.importorskip('mmseg')

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks/mmsegmentation'
PATHS = {path.stem: path for path in sorted(FOLDER.glob('[!_]*/*.py'))}
VOC = PATHS['fcn_r50-d8_4xb4-20k_voc12aug-512x512']
ADE = PATHS['upernet_r50_4xb4-80k_ade20k-512x512']
CITYSCAPES = PATHS['upernet_r50_4xb2-40k_cityscapes-512x1024']
VIT = PATHS['vit_vit-s16_mln_upernet_8xb2-80k_ade20k-512x512']
RESNETS = {name: path for name, path in PATHS.items() if path != VIT}
CLASSES = dict(voc12aug=21, ade20k=150)
HOST = Path(mmseg.__file__).parent / '.mim/configs'
# Keys in which a config may differ from mmseg's config of the same name.
OURS = re.compile(
    r'custom_imports\.|custom_hooks\.|auto_scale_lr\.|model\.pretrained$|'
    r'model\.backbone\.(type$|init_cfg\.)'
)


@cache
def load(path):
    """Resolve a config once; tests must not change it."""
    return Config.fromfile(path)


def load_pretraining(path):
    """Resolve the config that pre-trains the backbone."""
    name = 'resnet50_8xb32-coslr-200e'
    if path == VIT:
        name = 'vit-small-p16_8xb128-coslr-300e'
    return load(ROOT / f'configs/unimoco/unimoco_{name}_in1k.py')


def used_by_runner(cfg):
    """Return the part of a config that a Runner takes."""
    known = {*inspect.signature(Runner.__init__).parameters, 'custom_imports'}
    return {k: v for k, v in cfg.to_dict().items() if k in known}


@pytest.fixture
def build():
    """Return a function that builds a model in the scope of mmseg."""
    from mmseg.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmseg'):
        yield MODELS.build


@pytest.mark.parametrize('path', PATHS.values(), ids=PATHS)
def test_normalises_as_pre_training_does(path, build):
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    theirs = PRETRAINING_MODELS.build(
        {**load_pretraining(path).data_preprocessor, '_scope_': 'mmpretrain'}
    )
    ours = build(load(path).model.data_preprocessor)
    expected = theirs(dict(inputs=[images], data_samples=None))['inputs'][0]
    result = ours(dict(inputs=list(images)))['inputs']
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('path', PATHS.values(), ids=PATHS)
def test_everything_is_trained_with_synchronised_norms(path, build):
    with torch.device('meta'):
        model = build(load(path).model)
    model.train()
    for part, at_least in (
        (model.backbone, 0 if path == VIT else 53),
        (model.decode_head, 3),
        (model.auxiliary_head, 1),
    ):
        norms = [m for m in part.modules() if isinstance(m, _BatchNorm)]
        assert len(norms) >= at_least
        assert all(isinstance(m, SyncBatchNorm) for m in norms)
        assert all(m.training for m in norms)
    assert all(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize('path', RESNETS.values(), ids=RESNETS)
def test_differs_from_mmsegs_config_in_the_backbone_alone(path):
    (host,) = HOST.glob(f'*/{path.name}')
    theirs, ours = used_by_runner(Config.fromfile(host)), load(path)
    differing = differing_keys(theirs, used_by_runner(ours))
    assert differing
    assert not [key for key in differing if not OURS.match(key)]
    assert (ours.model.backbone.type, ours.model.backbone.depth) == (
        'ResNet',
        50,
    )
    assert theirs['model']['backbone']['type'] == 'ResNetV1c'


def test_vit_computes_what_the_pre_trained_one_does(build):
    """Weights of 6 heads would load into 12 and mean something else."""
    small = dict(img_size=32, out_type='featmap')
    theirs = dict(load_pretraining(VIT).model.backbone, **small)
    ours = dict(load(VIT).model.backbone, **small)
    ours.update(init_cfg=None, drop_path_rate=0.0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        theirs = PRETRAINING_MODELS.build(theirs)
    for value in theirs.parameters():
        torch.nn.init.normal_(value, std=0.05)
    ours = build(ours)
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    theirs.eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        features = ours(image)
        (expected,) = theirs(image)
    assert len(features) == 4
    torch.testing.assert_close(features[-1], expected)


def test_vit_does_not_decay_norms_and_embeddings(build):
    cfg = load(VIT)
    with torch.device('meta'):
        model = build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    not_decayed = {
        name
        for (name, _), group in zip(
            model.named_parameters(), optimizer.param_groups, strict=True
        )
        if name.startswith('backbone.') and group['weight_decay'] == 0
    }
    norms = {name for name in not_decayed if re.search(r'\.ln\d\.', name)}
    assert len(norms) == 2 * (2 * 12 + 1)
    embeddings = {'backbone.cls_token', 'backbone.pos_embed'}
    assert not_decayed == norms | embeddings


@pytest.mark.parametrize(
    ('path', 'write'), [(ADE, write_ade20k), (VOC, write_voc12aug)]
)
def test_labels_are_those_of_the_classes(path, write, tmp_path):
    """The files of ADE20K count from 1, with 0 to be ignored."""
    from mmseg.registry import DATASETS

    dataset = dict(load(path).val_dataloader.dataset)
    with DefaultScope.overwrite_default_scope('mmseg'):
        samples = DATASETS.build(
            {**dataset, 'data_root': str(write(tmp_path / 'data'))}
        )
    labels = set()
    for sample in samples:
        label_map = sample['data_samples'].gt_sem_seg.data
        labels |= set(label_map.unique().tolist())
    assert labels == {*range(CLASSES[path.parent.name]), 255}


@pytest.mark.parametrize('path', [VOC, CITYSCAPES, ADE])
def test_checkpoint_and_folder_follow_the_environment(path, monkeypatch):
    variable = f'{path.parent.name.upper()}_ROOT'
    monkeypatch.setenv(variable, '/elsewhere/images')
    monkeypatch.setenv('PRETRAINED', '/elsewhere/an epoch.pth')
    cfg = Config.fromfile(path)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = cfg[loader].dataset
        parts = dataset.get('datasets', [dataset])
        assert {part.data_root for part in parts} == {'/elsewhere/images'}
    checkpoint = cfg.model.backbone.init_cfg.checkpoint
    assert checkpoint == '/elsewhere/an epoch.pth'


def test_mmseg_is_found_under_any_distribution_name(monkeypatch):
    """Mmengine looks for mmsegmentation, which the onedl package is not."""
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    assert Config.fromfile(ADE).default_scope == 'mmseg'
    # The first base makes the second one known.
    for path in PATHS.values():
        first = re.search(r"_base_ = \[\s*'(.+?)'", path.read_text())[1]
        assert first == f'../_base_/{path.parent.name}.py'
