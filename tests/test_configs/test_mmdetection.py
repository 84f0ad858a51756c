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


@pytest.mark.parametrize('path', PATHS, ids=ids(PATHS))
def test_protocol(path):
    """What MoCo's transfer protocol asks of every detector."""
    cfg = load(path)
    backbone = cfg.model.backbone
    assert backbone.type == 'ResNet' and backbone.depth == 50
    assert backbone.frozen_stages == -1
    assert backbone.style == 'pytorch'
    preprocessor = cfg.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std) == (MEAN, STD)
    assert preprocessor.bgr_to_rgb
    assert 'mmunimoco' in cfg.custom_imports.imports
    # A detector named here would overwrite the pre-trained backbone.
    assert cfg.load_from is None
    # The learning rate is that of the batch: 0.02 for 16 images.
    images = 8 * cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr.base_batch_size == images
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.lr == 0.02 * images / 16
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    assert cfg.model.train_cfg.rpn.allowed_border == -1
    head, classes = cfg.model.roi_head, CLASSES[path.parent.name]
    assert head.bbox_head.num_classes == classes
    if path != VOC:
        assert head.mask_head.num_classes == classes


@pytest.mark.parametrize('path', PATHS, ids=ids(PATHS))
def test_schedule_ends_with_training(path):
    """Epochs and iterations are not mixed; the rate drops before the end."""
    cfg = load(path)
    length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs
    by_epoch = 'max_iters' not in cfg.train_cfg
    decay = cfg.param_scheduler[-1]
    assert (decay.by_epoch, decay.end) == (by_epoch, length)
    assert 0 < max(decay.milestones) < length
    assert cfg.log_processor.by_epoch == by_epoch
    assert cfg.default_hooks.checkpoint.get('by_epoch', True) == by_epoch


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
