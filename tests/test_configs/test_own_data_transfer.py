"""docs/transfer.md: its examples of own data run, faults are named.

Reduced in the runs: images and crops (an eighth), width of the backbone,
batch, workers, steps.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from small_configs import divide_by_8, save_pretrained, shrink
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from demo.make_scenes import write_scenes

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/own_data'
PAGE = (ROOT / 'docs/transfer.md').read_text(encoding='utf-8')
EXAMPLES = dict(
    re.findall(r'```python\n# (\S+\.py)\n(.*?)```', PAGE, flags=re.DOTALL)
)
# The lines to change, up to the first empty line.
BLOCK = re.compile(r'(?<=# Change these; ).*?\n(.*?)(?=\n\n)', re.DOTALL)
COCO = 'mask-rcnn_r50_fpn_coco-format.py'
VOC = 'faster-rcnn_r50_fpn_voc-format.py'
MASKS = 'upernet_r50_masks.py'
METRICS = {
    COCO: {'coco/bbox_mAP', 'coco/segm_mAP'},
    VOC: {'pascal_voc/mAP', 'pascal_voc/AP50', 'pascal_voc/AP75'},
    MASKS: {'mIoU', 'aAcc', 'mAcc'},
}
NARROW = dict(base_channels=8, stem_channels=8)
SIZES = {'scale', 'scales', 'crop_size', 'size'}
WIDTHS = [32, 64, 128, 256]  # of the stages


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with data/scenes and the checkpoint of a narrow ResNet-50."""
    root = tmp_path_factory.mktemp('transfer')
    (root / 'data').mkdir()
    write_scenes(root / 'data/scenes', dict(train=6, val=2))
    save_pretrained(
        root / 'pretrained.pth', dict(type='ResNet', depth=50, **NARROW)
    )
    return root


def reduced(path, work_dir):
    """Return a config that trains two steps of two small images."""
    cfg = Config.fromfile(path)
    shrink(cfg, {})
    for key in ('train', 'val', 'test'):
        divide_by_8(cfg[f'{key}_dataloader'].dataset, SIZES)
    cfg.train_dataloader.batch_size = 2
    cfg.model.backbone.update(NARROW)
    if 'neck' in cfg.model:
        cfg.model.neck.in_channels = WIDTHS
        for part in (cfg.model.train_cfg.rpn_proposal, cfg.model.test_cfg.rpn):
            part.update(nms_pre=50, max_per_img=20)
        cfg.model.train_cfg.rcnn.sampler.num = 16
    else:
        cfg.model.decode_head.in_channels = WIDTHS
        cfg.model.auxiliary_head.in_channels = 128
        divide_by_8(cfg.model.data_preprocessor, SIZES)
    cfg.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=2, val_interval=2
    )
    cfg.log_processor.by_epoch = False
    cfg.work_dir = str(work_dir)
    return cfg


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Return a function: train a copy with other lines in its block."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv('PRETRAINED', str(folder / 'pretrained.pth'))

    def run(name, lines):
        text = (FOLDER / name).read_text()
        (block,) = BLOCK.findall(text)
        text = text.replace(block, lines)
        text = text.replace('../benchmarks', str(ROOT / 'configs/benchmarks'))
        (tmp_path / name).write_text(text)
        cfg = reduced(tmp_path / name, tmp_path / 'work')
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            runner = Runner.from_cfg(cfg)
            runner.train()
        return runner

    return run


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the scenes, to be damaged."""
    return Path(shutil.copytree(folder / 'data/scenes', tmp_path / 'scenes'))


def with_classes(name, classes):
    """Return the example of a config with other classes."""
    pattern = re.compile(r'classes = \(.*?\n\)', re.DOTALL)
    lines, count = pattern.subn(f'classes = {classes}', EXAMPLES[name])
    assert count == 1
    return lines


def test_every_config_has_an_example_of_its_four_lines():
    copied = {
        path.name
        for path in FOLDER.glob('*.py')
        if 'small-images' not in path.name  # used as they are
    }
    assert set(EXAMPLES) == copied
    for name, example in EXAMPLES.items():
        (block,) = BLOCK.findall((FOLDER / name).read_text())
        shipped, shown = (
            re.findall(r'^(\w+) = ', text, re.MULTILINE)
            for text in (block, example)
        )
        assert shipped == shown and len(shown) == 4


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
def test_documented_example_runs(run, name, folder):
    runner = run(name, EXAMPLES[name])
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
    if name == VOC:
        assert re.search(r'\| T-shirt/top +\| \d+', log)


def test_a_part_of_the_categories_can_be_trained(run):
    assert run(COCO, with_classes(COCO, "('Trouser', 'Bag')")).iter == 2


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (COCO, r"no category named \['cat', 'dog'\]"),
        (VOC, 'no object of any of the classes'),
    ],
)
def test_unknown_classes_are_named(run, name, message):
    with pytest.raises(ValueError, match=message):
        run(name, with_classes(name, "('cat', 'dog')"))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_order_of_categories_must_be_that_of_the_classes(run, copy, split):
    path = copy / f'annotations/instances_{split}.json'
    content = json.loads(path.read_text())
    content['categories'].reverse()
    path.write_text(json.dumps(content))
    message = rf"{split}\.json has its categories in the order \['Ankle boot'"
    with pytest.raises(ValueError, match=message):
        run(COCO, EXAMPLES[COCO].replace('data/scenes/', f'{copy}/'))


def remove_mask(images, masks):
    next(masks.glob('*')).unlink()


def rename_images(images, masks):
    for file in images.glob('*'):
        file.rename(file.with_suffix('.npy'))


def remove_masks(images, masks):
    shutil.rmtree(masks)


@pytest.mark.parametrize(
    ('split', 'damage', 'message'),
    [
        ('train', remove_mask, r'1 of the \d images in .*have no mask in .*'),
        ('val', rename_images, r'has no images \(.jpg, .*has files of \.npy'),
        ('train', remove_masks, r'the folder .*masks/train does not exist'),
    ],
)
def test_faults_of_mask_folders_are_named(run, copy, split, damage, message):
    damage(copy / 'images' / split, copy / 'masks' / split)
    with pytest.raises(FileNotFoundError, match=message):
        run(MASKS, EXAMPLES[MASKS].replace('data/scenes/', f'{copy}/'))
