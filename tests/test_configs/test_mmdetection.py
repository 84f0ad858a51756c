"""The detection configs: settings, data folders, models and metric."""

from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS, MODELS, DefaultScope
from small_configs import flatten
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks/mmdetection'
PATHS = {path.stem: path for path in sorted(FOLDER.glob('[!_]*/*.py'))}
C4 = PATHS['mask-rcnn_r50-c4_ms-1x_coco']
FEW = PATHS['mask-rcnn_r50_fpn_ms-9k_coco-1pct']
(VOC,) = FOLDER.glob('voc0712/*.py')
(LVIS,) = FOLDER.glob('lvis/*.py')
(CITYSCAPES,) = FOLDER.glob('cityscapes/*.py')
PRETRAINING = (
    ROOT / 'configs/unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k.py'
)
# One of each data set, and of its parts.
PER_DATA = [C4, FEW, VOC, LVIS, CITYSCAPES]
# By folder: environment variable and default of the data.
DATA = dict(
    coco=('COCO_ROOT', 'data/coco'),
    voc0712=('VOC_ROOT', 'data/VOCdevkit'),
    lvis=('LVIS_ROOT', 'data/lvis_v1'),
    cityscapes=('CITYSCAPES_ROOT', 'data/cityscapes'),
)
CLASSES = dict(coco=80, voc0712=20, lvis=1203, cityscapes=8)


@cache
def load(path):
    """Resolve a config once; tests must not change it."""
    return Config.fromfile(path)


def names(paths):
    return [path.stem for path in paths]


@pytest.mark.parametrize('path', PATHS.values(), ids=PATHS)
def test_settings_fit_together(path):
    cfg = load(path)
    # A detector named here would overwrite the pre-trained backbone.
    assert cfg.load_from is None
    ours, pretraining = cfg.model.data_preprocessor, load(PRETRAINING)
    for name in ('mean', 'std'):
        assert ours[name] == pretraining.data_preprocessor[name]
    assert ours.bgr_to_rgb and pretraining.data_preprocessor.to_rgb
    # 0.02 for 16 images.
    images = 8 * cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr.base_batch_size == images
    assert cfg.optim_wrapper.optimizer.lr == 0.02 * images / 16
    head, classes = cfg.model.roi_head, CLASSES[path.parent.name]
    assert head.bbox_head.num_classes == classes
    if path != VOC:
        assert head.mask_head.num_classes == classes
    # Epochs and iterations are not mixed; the rate drops before the end.
    length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs
    by_epoch = 'max_iters' not in cfg.train_cfg
    decay = cfg.param_scheduler[-1]
    assert (decay.by_epoch, decay.end) == (by_epoch, length)
    assert 0 < max(decay.milestones) < length
    assert cfg.log_processor.by_epoch == by_epoch
    assert cfg.default_hooks.checkpoint.get('by_epoch', True) == by_epoch


@pytest.mark.parametrize('path', PER_DATA, ids=names(PER_DATA))
def test_folder_of_the_data_follows_the_environment(path, monkeypatch):
    variable, default = DATA[path.parent.name]
    before = load(path)
    monkeypatch.setenv(variable, '/elsewhere')
    after = load.__wrapped__(path)
    parts = ['train_dataloader', 'val_dataloader', 'test_dataloader']
    if path != VOC:  # its metric reads no file
        parts += ['val_evaluator', 'test_evaluator']
    for part in parts:
        old, new = (
            [str(v) for v in flatten(cfg[part]).values()]
            for cfg in (before, after)
        )
        found = [value for value in old if value.startswith('data/')]
        assert found and all(value.startswith(default) for value in found)
        assert not [value for value in new if value.startswith('data/')]
        moved = [value for value in new if value.startswith('/elsewhere')]
        assert len(moved) == len(found)
        # A slash is missing nowhere.
        assert all(f'{value}/'.startswith('/elsewhere/') for value in moved)


@pytest.mark.parametrize('path', [C4, VOC, LVIS], ids=names([C4, VOC, LVIS]))
def test_everything_is_trained_with_synchronised_norms(path):
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        torch.device('meta'),
    ):
        model = MODELS.build(load(path).model)
    model.train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert all(isinstance(m, SyncBatchNorm) and m.training for m in norms)
    # 53 in the ResNet-50; the extra norm of C4, or those of neck and heads.
    assert len(norms) == 53 + (8 + 4 + 4 if path == LVIS else 1)
    assert all(p.requires_grad for p in model.parameters())
    stages = [model.backbone.layer2, model.backbone.layer3]
    if path == LVIS:
        stages.append(model.backbone.layer4)
    else:
        assert not hasattr(model.backbone, 'layer4')
        stages.append(model.roi_head.shared_head.layer4)
    for stage in stages:  # the stride is in the 3x3
        assert stage[0].conv1.stride == (1, 1)
        assert stage[0].conv2.kernel_size == (3, 3)
        assert stage[0].conv2.stride == (2, 2)


def test_fold_of_few_images_follows_the_environment(monkeypatch):
    few = [path for path in PATHS.values() if path.stem.endswith('pct')]
    monkeypatch.setenv('COCO_FOLD', '4')
    for path in few:
        percent = path.stem.rsplit('-', 1)[1].removesuffix('pct')
        name = 'semi_anns/instances_train2017.{}@{}.json'
        dataset = load(path).train_dataloader.dataset
        assert dataset.ann_file == name.format(1, percent)
        dataset = load.__wrapped__(path).train_dataloader.dataset
        assert dataset.ann_file == name.format(4, percent)
    assert len(few) == 3


class TestVOCMetric:
    """AP, AP50 and AP75 as in detectron2's evaluation of VOC 2007."""

    def evaluate(self, predicted):
        """Two objects of 100 x 100 pixels in two images of one class."""
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
        # One of two objects: recalls 0, 0.1, ..., 0.5 are reached.
        found = self.evaluate([[[0.0, 0, 99, 99]], []])
        assert found['pascal_voc/mAP'] == pytest.approx(6 / 11)
        assert found['pascal_voc/AP75'] == pytest.approx(6 / 11, abs=5e-4)
