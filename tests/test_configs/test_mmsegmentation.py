"""The segmentation configs say what they should, at their real size."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS as PRETRAINING_MODELS
from segmentation_configs import (
    ADE,
    CITYSCAPES,
    FOLDER,
    PATHS,
    VIT,
    VOC,
    load,
    load_pretraining,
)
from torch.nn.modules.batchnorm import _BatchNorm
from transfer_data.ade20k import write_ade20k
from transfer_data.voc12aug import write_voc12aug

mmseg = pytest.importorskip('mmseg')

IDS = [path.stem for path in PATHS]
RESNETS = [path for path in PATHS if path != VIT]
CLASSES = dict(voc12aug=21, ade20k=150)
HOST = Path(mmseg.__file__).parent / '.mim/configs'
# What a config may have otherwise than the one of the same name in mmseg.
OURS = re.compile(
    r'custom_imports\.|custom_hooks\.|auto_scale_lr\.|model\.pretrained$|'
    r'model\.backbone\.(type$|init_cfg\.)'
)


def flatten(node, prefix=''):
    """Values of nested dicts and lists by dotted key, without scopes."""
    if isinstance(node, dict):
        items = [(k, v) for k, v in node.items() if k != '_scope_']
    elif isinstance(node, (list, tuple)):
        items = list(enumerate(node))
    else:
        return {prefix[:-1]: node}
    flat = {}
    for key, value in items:
        flat.update(flatten(value, f'{prefix}{key}.'))
    return flat


def what_counts(cfg):
    """What the Runner takes from a config; the rest are names of the file."""
    known = {*inspect.signature(Runner.__init__).parameters, 'custom_imports'}
    return flatten({k: v for k, v in cfg.to_dict().items() if k in known})


def datasets(loader):
    return loader.dataset.get('datasets', [loader.dataset])


@pytest.fixture
def build():
    """Return a function: build a model in the scope of mmseg."""
    from mmseg.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmseg'):
        yield MODELS.build


@pytest.mark.parametrize('path', PATHS, ids=IDS)
class TestEveryConfig:
    def test_normalises_as_pre_training_does(self, path, build):
        images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
        pretraining = load_pretraining(vit=path == VIT)
        theirs = PRETRAINING_MODELS.build(
            {**pretraining.data_preprocessor, '_scope_': 'mmpretrain'}
        )
        ours = build(load(path).model.data_preprocessor)
        expected = theirs(dict(inputs=[images], data_samples=None))['inputs']
        result = ours(dict(inputs=list(images)))['inputs']
        torch.testing.assert_close(result, expected[0], rtol=0, atol=1e-6)

    def test_every_norm_is_synchronised_and_nothing_frozen(self, path, build):
        with torch.device('meta'):
            model = build(load(path).model)
        model.train()
        for part, least in (
            (model.backbone, 0 if path == VIT else 53),
            (model.decode_head, 3),
            (model.auxiliary_head, 1),
        ):
            norms = [m for m in part.modules() if isinstance(m, _BatchNorm)]
            assert len(norms) >= least
            for norm in norms:
                assert isinstance(norm, torch.nn.SyncBatchNorm)
                assert norm.training
        assert all(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize('path', RESNETS, ids=[path.stem for path in RESNETS])
def test_differs_from_the_hosts_config_in_the_backbone_alone(path):
    (host,) = HOST.glob(f'*/{path.name}')
    theirs = what_counts(Config.fromfile(host))
    ours = what_counts(load(path))
    differing = {key for key, _ in theirs.items() ^ ours.items()}
    assert differing
    assert not [key for key in differing if not OURS.match(key)]
    backbone = load(path).model.backbone
    assert (backbone.type, backbone.depth) == ('ResNet', 50)
    assert theirs['model.backbone.type'] == 'ResNetV1c'


class TestVit:
    def test_sees_what_the_pre_trained_backbone_sees(self, build):
        """Weights of 6 heads would load into 12, and mean something else."""
        theirs = load_pretraining(vit=True).model.backbone
        theirs.update(img_size=32, out_type='featmap')
        ours = load(VIT).model.backbone
        ours.update(img_size=32, init_cfg=None, drop_path_rate=0.0)
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

    def test_decays_weights_alone(self, build):
        from mmengine.optim import build_optim_wrapper

        cfg = load(VIT)
        with torch.device('meta'):
            model = build(cfg.model)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
        decay = {
            name: group['weight_decay']
            for (name, _), group in zip(
                model.named_parameters(), optimizer.param_groups, strict=True
            )
            if name.startswith('backbone.')
        }
        kept = {name for name, value in decay.items() if value == 0}
        expected = {name for name in decay if re.search(r'\.ln\d\.', name)}
        assert len(expected) == 2 * (2 * 12 + 1)
        assert kept == expected | {'backbone.cls_token', 'backbone.pos_embed'}


class TestData:
    def test_labels_are_those_of_the_classes(self, tmp_path, build):
        """The files of ADE20K count from 1, with 0 to be ignored."""
        from mmseg.registry import DATASETS as REGISTRY

        loads = {ADE: write_ade20k, VOC: write_voc12aug}
        for path, write in loads.items():
            root = write(tmp_path / path.parent.name)
            cfg = load(path).val_dataloader.dataset
            cfg.update(data_root=str(root))
            samples = list(REGISTRY.build(cfg))
            labels = {
                label
                for sample in samples
                for label in sample['data_samples']
                .gt_sem_seg.data.unique()
                .tolist()
            }
            assert labels == {*range(CLASSES[path.parent.name]), 255}

    @pytest.mark.parametrize('path', [VOC, CITYSCAPES, ADE])
    def test_checkpoint_and_folder_follow_the_environment(
        self, path, monkeypatch
    ):
        name = f'{path.parent.name.upper()}_ROOT'
        monkeypatch.setenv(name, '/somewhere/images')
        monkeypatch.setenv('PRETRAINED', '/somewhere/epoch_200.pth')
        cfg = Config.fromfile(path)
        for loader in (
            cfg.train_dataloader,
            cfg.val_dataloader,
            cfg.test_dataloader,
        ):
            roots = {data.data_root for data in datasets(loader)}
            assert roots == {'/somewhere/images'}
        checkpoint = cfg.model.backbone.init_cfg.checkpoint
        assert checkpoint == '/somewhere/epoch_200.pth'


def test_mmseg_is_found_under_any_distribution_name(monkeypatch):
    """Mmengine looks for mmsegmentation, which the onedl package is not."""
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    path = FOLDER / 'ade20k' / ADE.name
    assert Config.fromfile(path).default_scope == 'mmseg'
    # The first base makes the second one known.
    for path in PATHS:
        first = re.search(r"_base_ = \[\s*'(.+?)'", path.read_text())[1]
        assert first == f'../_base_/{path.parent.name}.py'
