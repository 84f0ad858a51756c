"""docs/transfer.md: its examples of own data run.

Reduced in the runs: images and crops (an eighth), width of the backbone,
batch, workers, steps.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import ResNet
from mmpretrain.registry import MODELS
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from demo.make_scenes import write_scenes  # noqa: E402

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs' / 'own_data'
PAGE = (ROOT / 'docs' / 'transfer.md').read_text(encoding='utf-8')
BLOCKS = dict(
    re.findall(r'```python\n# (\S+\.py)\n(.*?)```', PAGE, flags=re.DOTALL)
)
RULE = re.compile(r'(?<=usually changed -{25}\n).*?(?=# -{67}\n)', re.DOTALL)
METRICS = {
    'mask-rcnn_r50_fpn_coco-format.py': {
        'coco/bbox_mAP',
        'coco/segm_mAP',
    },
    'faster-rcnn_r50_fpn_voc-format.py': {
        'pascal_voc/mAP',
        'pascal_voc/AP50',
        'pascal_voc/AP75',
    },
    'upernet_r50_masks.py': {'mIoU', 'aAcc', 'mAcc'},
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with data/scenes and the checkpoint of a narrow ResNet-50."""
    root = tmp_path_factory.mktemp('transfer')
    (root / 'data').mkdir()
    write_scenes(root / 'data' / 'scenes', dict(train=6, val=2))
    torch.manual_seed(0)
    backbone = ResNet(depth=50, base_channels=8, stem_channels=8)
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    torch.save({'state_dict': state}, root / 'pretrained.pth')
    return root


def _write(folder, name, lines):
    """Copy a config with other lines in its block on top."""
    text = (FOLDER / name).read_text()
    assert len(RULE.findall(text)) == 1
    text = RULE.sub(lambda _: lines, text)
    text = text.replace('../benchmarks', str(ROOT / 'configs/benchmarks'))
    path = folder / name
    path.write_text(text)
    return path


def _shrink(node):
    if isinstance(node, (list, tuple)):
        for item in node:
            _shrink(item)
    if not isinstance(node, dict):
        return
    for key in ('scale', 'scales', 'crop_size', 'size'):
        if key in node:
            node[key] = _eighth(node[key])
    for value in node.values():
        _shrink(value)


def _eighth(sizes):
    if isinstance(sizes, (list, tuple)):
        return type(sizes)(map(_eighth, sizes))
    return sizes // 8


def _reduced(path, work_dir):
    cfg = Config.fromfile(path)
    for key in ('train', 'val', 'test'):
        loader = cfg[f'{key}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        _shrink(loader.dataset.pipeline)
    cfg.train_dataloader.batch_size = 2
    cfg.model.backbone.update(base_channels=8, stem_channels=8)
    widths = [32, 64, 128, 256]
    if 'neck' in cfg.model:
        cfg.model.neck.in_channels = widths
        for part in (cfg.model.train_cfg.rpn_proposal, cfg.model.test_cfg.rpn):
            part.update(nms_pre=50, max_per_img=20)
        cfg.model.train_cfg.rcnn.sampler.num = 16
    else:
        cfg.model.decode_head.in_channels = widths
        cfg.model.auxiliary_head.in_channels = 128
        _shrink(cfg.model.data_preprocessor)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.train_cfg.val_interval = 2
    cfg.log_processor.by_epoch = False
    cfg.work_dir = str(work_dir)
    return cfg


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Run a block of the page for two steps and one validation."""

    def run(name, lines=None):
        monkeypatch.chdir(folder)
        monkeypatch.setenv('PRETRAINED', str(folder / 'pretrained.pth'))
        path = _write(tmp_path, name, lines or BLOCKS[name])
        cfg = _reduced(path, tmp_path / 'work')
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            runner = Runner.from_cfg(cfg)
            runner.train()
        return runner

    return run


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the scenes, to be damaged."""
    return Path(shutil.copytree(folder / 'data/scenes', tmp_path / 'scenes'))


def test_every_config_has_an_example():
    assert set(METRICS) == {path.name for path in FOLDER.glob('*.py')}
    assert set(METRICS) == set(BLOCKS)


def test_backbone_of_another_detector(tmp_path, monkeypatch):
    monkeypatch.setenv('PRETRAINED', 'none')
    path = tmp_path / 'detector.py'
    path.write_text(PAGE.split('# any config of mmdet\n')[1].split('```')[0])
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        backbone = MODELS.build(cfg.model.backbone)
        backbone.init_weights()
    assert type(backbone).__module__.startswith('mmdet.')
    backbone.train()
    assert all(weight.requires_grad for weight in backbone.parameters())
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) == 53
    assert all(isinstance(norm, SyncBatchNorm) for norm in norms)
    assert all(norm.training for norm in norms)


@pytest.mark.parametrize('name', METRICS)
def test_four_lines_are_to_be_changed(name):
    (shipped,) = RULE.findall((FOLDER / name).read_text())
    keys = [
        [line.split(' = ')[0] for line in lines.splitlines()]
        for lines in (shipped, BLOCKS[name])
    ]
    assert keys[0] == keys[1] and len(keys[0]) == 4


@pytest.mark.slow
@pytest.mark.parametrize('name', METRICS)
def test_documented_example_runs(run, name, folder):
    runner = run(name)
    assert runner.iter == 2
    scalars = runner.message_hub.log_scalars
    assert {f'val/{metric}' for metric in METRICS[name]} <= set(scalars)
    loss = scalars['train/loss'].data[0]
    assert len(loss) == 2 and all(0 < value < 100 for value in loss)
    assert len(runner.train_dataloader.dataset) == 6
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert str(folder / 'pretrained.pth') in log
    # Though the folder is called as VOC's, the classes are the user's own.
    assert 'aeroplane' not in log
    if name.startswith('faster'):
        assert re.search(r'\| T-shirt/top +\| \d+', log)


@pytest.mark.parametrize(
    'classes, unknown',
    [
        ("('Trousers', 'Bag')", r"\['Trousers'\]"),
        ("('cat', 'dog')", r"\['cat', 'dog'\]"),
    ],
)
def test_unknown_class_in_coco_format(run, classes, unknown):
    name = 'mask-rcnn_r50_fpn_coco-format.py'
    lines = re.sub(r'classes = .*', f'classes = {classes}', BLOCKS[name])
    with pytest.raises(ValueError, match=f'no category named {unknown}'):
        run(name, lines)


def _reverse_categories(path):
    content = json.loads(path.read_text())
    content['categories'].reverse()
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_order_of_categories_is_that_of_the_classes(run, copy, split):
    name = 'mask-rcnn_r50_fpn_coco-format.py'
    _reverse_categories(copy / f'annotations/instances_{split}.json')
    lines = BLOCKS[name].replace('data/scenes/', f'{copy}/')
    message = rf"{split}\.json has its categories in the order \['Ankle boot'"
    with pytest.raises(ValueError, match=message):
        run(name, lines)


def test_some_of_the_categories_will_do(run):
    name = 'mask-rcnn_r50_fpn_coco-format.py'
    lines = re.sub(
        r'classes = .*', "classes = ('Trouser', 'Bag')", BLOCKS[name]
    )
    assert run(name, lines).iter == 2


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (
            lambda images, masks: next(masks.glob('*')).unlink(),
            r'1 of the \d images in .*images/{} have no mask in .*masks/{}',
        ),
        (
            lambda images, masks: [f.unlink() for f in images.glob('*')],
            r'images/{} has no images \(.jpg, .*it has no files',
        ),
        (
            lambda images, masks: [
                f.rename(f.with_suffix('.npy')) for f in images.glob('*')
            ],
            r'images/{} has no images \(.jpg, .*it has files of \.npy',
        ),
        (
            lambda images, masks: shutil.rmtree(masks),
            r'the folder .*masks/{} does not exist',
        ),
    ],
)
def test_faults_of_mask_folders_are_named(run, copy, split, damage, message):
    name = 'upernet_r50_masks.py'
    damage(copy / 'images' / split, copy / 'masks' / split)
    lines = BLOCKS[name].replace('data/scenes/', f'{copy}/')
    with pytest.raises(FileNotFoundError, match=message.format(split, split)):
        run(name, lines)


def test_no_class_of_the_xml_files(run):
    name = 'faster-rcnn_r50_fpn_voc-format.py'
    lines = re.sub(r'classes = .*', "classes = ('cat', 'dog')", BLOCKS[name])
    with pytest.raises(ValueError, match='no object of any of the classes'):
        run(name, lines)


@pytest.mark.parametrize(
    'name, old, new',
    [
        (
            'mask-rcnn_r50_fpn_coco-format.py',
            'instances_train.json',
            'gone.json',
        ),
        ('faster-rcnn_r50_fpn_voc-format.py', 'trainval.txt', 'gone.txt'),
    ],
)
def test_missing_annotations_are_named(run, name, old, new):
    with pytest.raises(FileNotFoundError, match=new.replace('.', r'\.')):
        run(name, BLOCKS[name].replace(old, new))
