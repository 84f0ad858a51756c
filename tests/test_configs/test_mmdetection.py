"""The detection configs: what they say, and what they build at full size."""

from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS, MODELS, DefaultScope
from mmpretrain.models import ResNet
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks/mmdetection'
PATHS = sorted(
    path for path in FOLDER.glob('*/*.py') if path.parent.name != '_base_'
)
C4 = [path for path in PATHS if 'r50-c4' in path.name]
FPN = [path for path in PATHS if 'r50_fpn' in path.name]
(VOC,) = FOLDER.glob('voc0712/*.py')
# One of each model.
MODELS_OF = [C4[0], FPN[1], VOC, *FOLDER.glob('lvis/*.py')]
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
# Environment variable and default of the folder of the data.
DATA = dict(
    coco=('COCO_ROOT', 'data/coco'),
    voc0712=('VOC_ROOT', 'data/VOCdevkit'),
    lvis=('LVIS_ROOT', 'data/lvis_v1'),
    cityscapes=('CITYSCAPES_ROOT', 'data/cityscapes'),
)
CLASSES = dict(coco=80, voc0712=20, lvis=1203, cityscapes=8)
# Length in epochs or iterations, milestones, warm-up in iterations.
SCHEDULES = {
    'mask-rcnn_r50-c4_ms-1x_coco': (12, [8, 11], 500),
    'mask-rcnn_r50-c4_ms-2x_coco': (24, [16, 22], 500),
    'mask-rcnn_r50_fpn_ms-1x_coco': (12, [8, 11], 500),
    'mask-rcnn_r50_fpn_ms-2x_coco': (24, [16, 22], 500),
    'mask-rcnn_r50_fpn_ms-9k_coco-1pct': (9000, [6000, 8000], 500),
    'mask-rcnn_r50_fpn_ms-18k_coco-5pct': (18000, [12000, 16000], 500),
    'mask-rcnn_r50_fpn_ms-27k_coco-10pct': (27000, [18000, 24000], 500),
    'faster-rcnn_r50-c4_ms-24k_voc0712': (24000, [18000, 22000], 100),
    'mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1': (12, [8, 11], 500),
    'mask-rcnn_r50_fpn_1x_cityscapes': (8, [7], 500),
}


@cache
def load(path):
    """Resolve a config, once: no test may change what it gets."""
    return Config.fromfile(path)


def build(model):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model)


def ids(paths):
    return [path.stem for path in paths]


def strings(node):
    """Yield every string in nested dicts and lists."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, str):
        yield node
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from strings(item)


def steps(node, name):
    """Yield every dict of type ``name`` in nested dicts and lists."""
    if isinstance(node, dict):
        if node.get('type') == name:
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from steps(item, name)


def test_every_config_has_its_schedule_here():
    assert set(ids(PATHS)) == set(SCHEDULES)


@pytest.mark.parametrize('path', PATHS, ids=ids(PATHS))
class TestEveryConfig:
    def test_protocol(self, path):
        cfg = load(path)
        backbone = cfg.model.backbone
        assert backbone.type == 'ResNet' and backbone.depth == 50
        assert backbone.frozen_stages == -1
        assert backbone.style == 'pytorch'
        preprocessor = cfg.model.data_preprocessor
        assert (preprocessor.mean, preprocessor.std) == (MEAN, STD)
        assert preprocessor.bgr_to_rgb
        assert cfg.default_scope == 'mmdet'
        assert cfg.custom_imports.imports == ['mmunimoco']
        assert [hook.type for hook in cfg.custom_hooks] == [
            'NumClassCheckHook',
            'mmpretrain.PreflightHook',
        ]
        # A detector named here would overwrite the pre-trained backbone.
        assert cfg.load_from is None

    def test_schedule(self, path):
        cfg = load(path)
        length, milestones, warmup = SCHEDULES[path.stem]
        by_epoch = length < 100
        if by_epoch:
            assert cfg.train_cfg.max_epochs == length
        else:
            assert cfg.train_cfg.max_iters == length
            assert cfg.train_cfg.type == 'IterBasedTrainLoop'
            assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
        first, last = cfg.param_scheduler
        assert first.type == 'LinearLR'
        assert (first.by_epoch, first.end) == (False, warmup)
        assert (last.by_epoch, last.end) == (by_epoch, length)
        assert (last.milestones, last.gamma) == (milestones, 0.1)
        assert cfg.log_processor.by_epoch == by_epoch
        assert cfg.default_hooks.checkpoint.get('by_epoch', True) == by_epoch

    def test_learning_rate_belongs_to_the_batch(self, path):
        cfg = load(path)
        images = 8 * cfg.train_dataloader.batch_size
        assert cfg.auto_scale_lr.base_batch_size == images
        assert cfg.auto_scale_lr.enable is False
        assert images == (8 if path.parent.name == 'cityscapes' else 16)
        assert cfg.optim_wrapper.optimizer == dict(
            type='SGD', lr=0.02 * images / 16, momentum=0.9, weight_decay=1e-4
        )
        assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)

    def test_scales(self, path):
        cfg = load(path)
        train = cfg.train_dataloader
        if path.parent.name == 'cityscapes':
            (resize,) = steps(train, 'RandomResize')
            assert resize.scale == [(2048, 800), (2048, 1024)]
            tested = (2048, 1024)
        else:
            shortest = 480 if path.parent.name == 'voc0712' else 640
            wanted = [(1333, side) for side in range(shortest, 801, 32)]
            found = list(steps(train, 'RandomChoiceResize'))
            assert found
            assert all(resize.scales == wanted for resize in found)
            tested = (1333, 800)
        assert not list(steps(train, 'Resize'))
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            assert [s.scale for s in steps(loader, 'Resize')] == [tested]

    def test_classes(self, path):
        cfg, classes = load(path), CLASSES[path.parent.name]
        head = cfg.model.roi_head
        assert head.bbox_head.num_classes == classes
        if path != VOC:
            assert head.mask_head.num_classes == classes


# One for each way in which the data are named.
DATA_PATHS = [path for path in PATHS if 'c4_' not in path.name or path == VOC]


@pytest.mark.parametrize('path', DATA_PATHS, ids=ids(DATA_PATHS))
def test_data_root_follows_the_environment(path, monkeypatch):
    variable, default = DATA[path.parent.name]
    parts = ['train_dataloader', 'val_dataloader', 'test_dataloader']
    if path != VOC:  # its metric reads no file
        parts += ['val_evaluator', 'test_evaluator']
    before = load(path)
    monkeypatch.setenv(variable, '/somewhere')
    after = load.__wrapped__(path)
    for part in parts:
        named = [s for s in strings(before[part]) if s.startswith('data/')]
        assert named and all(s.startswith(default) for s in named)
        assert not [s for s in strings(after[part]) if s.startswith('data/')]
        named = [s for s in strings(after[part]) if s.startswith('/somewhere')]
        assert named and not any('/somewherea' in s for s in named)


@pytest.mark.parametrize('path', MODELS_OF, ids=ids(MODELS_OF))
def test_checkpoint_comes_from_the_environment(path, monkeypatch):
    def initial(cfg):
        model = cfg.model
        parts = [model.backbone, model.roi_head.get('shared_head')]
        return [part.init_cfg.to_dict() for part in parts if part]

    wanted = dict(
        type='mmpretrain.Pretrained', checkpoint='', prefix='backbone.'
    )
    monkeypatch.delenv('PRETRAINED', raising=False)
    assert initial(load.__wrapped__(path))[0] == wanted
    monkeypatch.setenv('PRETRAINED', '/somewhere/a b.pth')
    found = initial(load.__wrapped__(path))
    wanted['checkpoint'] = '/somewhere/a b.pth'
    if path in C4:
        assert found == [wanted, {**wanted, 'allow_missing': ('norm.',)}]
    else:
        assert found == [wanted]


@pytest.mark.parametrize('path', MODELS_OF, ids=ids(MODELS_OF))
def test_everything_is_trained_with_synchronised_norms(path):
    model = build(load(path).model)
    model.train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert all(isinstance(m, SyncBatchNorm) for m in norms)
    assert all(m.training for m in norms)
    # 53 of the ResNet-50; the extra norm, or those of neck and heads.
    assert len(norms) == 53 + (1 if path in C4 else 8 + 4 + 4)
    assert all(p.requires_grad for p in model.parameters())
    stages = [model.backbone.layer2, model.backbone.layer3]
    if path in C4:
        assert not hasattr(model.backbone, 'layer4')
        stages.append(model.roi_head.shared_head.layer4)
    else:
        stages.append(model.backbone.layer4)
    for stage in stages:  # the stride is in the 3x3
        assert stage[0].conv1.stride == (1, 1)
        assert stage[0].conv2.kernel_size == (3, 3)
        assert stage[0].conv2.stride == (2, 2)


@pytest.mark.parametrize('path', [C4[0], FPN[1]], ids=['c4', 'fpn'])
def test_loads_the_resnet50_of_pretraining(path, tmp_path, monkeypatch):
    torch.manual_seed(1)
    source = ResNet(depth=50)
    source.init_weights()
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    for key, value in state.items():
        if 'running' in key:
            value.uniform_(0.5, 1.5)
    torch.save(dict(state_dict=state), tmp_path / 'r50.pth')
    monkeypatch.setenv('PRETRAINED', str(tmp_path / 'r50.pth'))
    model = build(load.__wrapped__(path).model)
    model.init_weights()

    found = {
        f'backbone.{k}': v for k, v in model.backbone.state_dict().items()
    }
    if path in C4:
        head = model.roi_head.shared_head
        extra = {k for k in head.state_dict() if k.startswith('norm.')}
        assert len(extra) == 5
        assert torch.equal(head.norm.weight, torch.ones(2048))
        found |= {
            f'backbone.{k}': v
            for k, v in head.state_dict().items()
            if k not in extra
        }
    assert found.keys() == state.keys()
    assert [k for k in state if not torch.equal(state[k], found[k])] == []


def test_anchors_that_cross_the_border_are_trained():
    for path in PATHS:
        assert load(path).model.train_cfg.rpn.allowed_border == -1


def test_folds_of_few_images(monkeypatch):
    few = [path for path in PATHS if path.stem.endswith('pct')]
    for path in few:
        percent = path.stem.rsplit('-', 1)[1].removesuffix('pct')
        name = 'semi_anns/instances_train2017.{}@{}.json'
        dataset = load(path).train_dataloader.dataset
        assert dataset.ann_file == name.format(1, percent)
        monkeypatch.setenv('COCO_FOLD', '4')
        dataset = load.__wrapped__(path).train_dataloader.dataset
        assert dataset.ann_file == name.format(4, percent)
        monkeypatch.delenv('COCO_FOLD')
    assert len(few) == 3


class TestVOCMetric:
    """AP, AP50 and AP75 as in detectron2's evaluation of VOC 2007."""

    def evaluate(self, predicted):
        """Two objects, 100 x 100 pixels each, in two images of a class."""
        with DefaultScope.overwrite_default_scope('mmdet'):
            metric = METRICS.build(load(VOC).test_evaluator)
        metric.dataset_meta = dict(classes=['a'], dataset_type='VOC2007')
        none = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
        for boxes in predicted:
            boxes = torch.tensor(boxes).reshape(-1, 4)
            labels = torch.zeros(len(boxes), dtype=torch.long)
            sample = dict(
                gt_instances=dict(
                    bboxes=torch.tensor([[0.0, 0, 99, 99]]),
                    labels=torch.zeros(1),
                ),
                ignored_instances=none,
                pred_instances=dict(
                    bboxes=boxes, labels=labels, scores=torch.ones(len(boxes))
                ),
            )
            metric.process({}, [sample])
        return metric.evaluate(len(predicted))

    def test_is_the_mean_over_ten_thresholds(self):
        box = [0.0, 0, 71, 99]  # an overlap of 0.72
        found = self.evaluate([[box], [box]])
        assert found['pascal_voc/AP50'] == 1
        assert found['pascal_voc/AP75'] == 0
        assert found['pascal_voc/mAP'] == pytest.approx(0.5)
        thresholds = {f'pascal_voc/AP{i}' for i in range(50, 100, 5)}
        assert set(found) == {'pascal_voc/mAP', *thresholds}

    def test_takes_precision_at_eleven_points(self):
        # Half of the objects: recalls 0, 0.1, ..., 0.5 are reached.
        found = self.evaluate([[[0.0, 0, 99, 99]], []])
        assert found['pascal_voc/mAP'] == pytest.approx(6 / 11)
        assert found['pascal_voc/AP75'] == pytest.approx(6 / 11, abs=5e-4)
