"""The detection configs train and validate, from a checkpoint.

On tiny data in the layouts of the real data sets. Reduced besides: depth and
widths (ResNet-18), the size of images, the number of proposals and RoIs, two
steps in place of the schedule.
"""

import runpy
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models import ResNet

mmdet = pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks/mmdetection'
PATHS = sorted(
    path for path in FOLDER.glob('*/*.py') if path.parent.name != '_base_'
)
(VOC,) = FOLDER.glob('voc0712/*.py')
COCO = FOLDER / 'coco/mask-rcnn_r50_fpn_ms-1x_coco.py'
SPLIT = Path(mmdet.__file__).parent / '.mim/tools/misc/split_coco.py'
BOTH = ('bbox', 'segm')
METRICS = dict(
    coco={f'coco/{kind}_mAP' for kind in BOTH},
    voc0712={'pascal_voc/mAP', 'pascal_voc/AP50', 'pascal_voc/AP75'},
    lvis={f'lvis/{kind}_AP' for kind in BOTH},
    cityscapes={f'coco/{kind}_mAP' for kind in BOTH},
)
HAS_CITYSCAPES = find_spec('cityscapesscripts') is not None
if HAS_CITYSCAPES:
    METRICS['cityscapes'] |= {'cityscapes/mAP', 'cityscapes/AP@50'}
# What a dict of the config is given, by its type.
SMALL = dict(
    RandomChoiceResize=dict(scales=[(96, 64), (128, 72)]),
    RandomResize=dict(scale=[(128, 64), (128, 72)]),
    Resize=dict(scale=(96, 64)),
    EpochBasedTrainLoop=dict(max_epochs=1),
    IterBasedTrainLoop=dict(max_iters=2, val_interval=2),
)


class Record(Hook):
    """The weights before the first step, and what validation gave."""

    def before_train(self, runner):
        self.weights = transferred(runner)

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


def transferred(runner):
    """What a checkpoint fills, under the names that it has there."""
    model = runner.model
    state = dict(model.backbone.state_dict())
    if model.roi_head.with_shared_head:
        head = model.roi_head.shared_head.state_dict()
        state |= {k: v for k, v in head.items() if not k.startswith('norm.')}
    return {f'backbone.{key}': value.clone() for key, value in state.items()}


def write_checkpoint(file, width):
    """A checkpoint as pre-training leaves it, with more than the backbone."""
    torch.manual_seed(1)
    source = ResNet(depth=18, stem_channels=width, base_channels=width)
    source.init_weights()
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    for key, value in state.items():
        # Norms as no fresh network has them: no statistics, some of them 0.
        if value.ndim == 1 and not key.endswith('bias'):
            value.uniform_(0.5, 1.5)
        if key.endswith('num_batches_tracked'):
            value.fill_(7)
    torch.save(dict(state_dict={**state, 'neck.a': torch.rand(2)}), file)
    return state


def reduce(node):
    """Shrink, in place, what makes a config expensive to try."""
    if isinstance(node, list):
        for item in node:
            reduce(item)
    if not isinstance(node, dict):
        return
    node.update(SMALL.get(node.get('type'), {}))
    if 'num_workers' in node:
        node.update(num_workers=0, persistent_workers=False)
        if node['sampler'].type == 'DefaultSampler':
            node.num_batch_per_epoch = 2
    for item in list(node.values()):
        reduce(item)


def shrink_model(model):
    """Make a ResNet-18 detector of it; return the width of its first stage."""
    heads = model.roi_head
    model.backbone.depth = 18
    model.rpn_head.feat_channels = 16
    if 'neck' not in model:  # C4, whose res5 has no width to set
        model.rpn_head.in_channels = 256
        heads.shared_head.depth = 18
        heads.bbox_roi_extractor.out_channels = 256
        heads.bbox_head.in_channels = 512
        if heads.mask_head:
            heads.mask_head.update(in_channels=512, conv_out_channels=16)
        width = 64
    else:
        width = 16
        model.backbone.update(base_channels=width, stem_channels=width)
        model.neck.update(
            in_channels=[width * 2**i for i in range(4)], out_channels=16
        )
        model.rpn_head.in_channels = 16
        heads.bbox_roi_extractor.out_channels = 16
        heads.mask_roi_extractor.out_channels = 16
        heads.bbox_head.update(
            in_channels=16, conv_out_channels=16, fc_out_channels=32
        )
        heads.mask_head.update(in_channels=16, conv_out_channels=16)
    for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        proposals.update(nms_pre=50, max_per_img=10)
    model.train_cfg.rcnn.sampler.num = 8
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)
    return width


@pytest.fixture(scope='session')
def detection_roots(tmp_path_factory):
    """Folder of each tiny data set by the variable that names it."""
    from transfer_data.cityscapes import write_cityscapes
    from transfer_data.coco import write_coco
    from transfer_data.lvis import write_lvis
    from transfer_data.voc import write_voc

    root = tmp_path_factory.mktemp('detection')
    # A hundred images, of which 1 % is one.
    coco = write_coco(root / 'coco', size=(64, 48), train_images=100)
    split = runpy.run_path(str(SPLIT))['split_coco']
    for percent in (1, 5, 10):
        split(str(coco), str(coco / 'semi_anns'), percent, 1)
    return dict(
        COCO_ROOT=coco,
        VOC_ROOT=write_voc(root / 'VOCdevkit'),
        LVIS_ROOT=write_lvis(root / 'lvis_v1'),
        CITYSCAPES_ROOT=write_cityscapes(root / 'cityscapes'),
    )


@pytest.fixture
def make_runner(detection_roots, tmp_path, monkeypatch):
    """Return a function: config path to reduced runner with a checkpoint."""
    monkeypatch.setenv('PRETRAINED', str(tmp_path / 'pretrained.pth'))

    def make(path, **roots):
        for name, root in {**detection_roots, **roots}.items():
            monkeypatch.setenv(name, str(root))
        cfg = Config.fromfile(path)
        reduce(cfg._cfg_dict)
        width = shrink_model(cfg.model)
        stored = write_checkpoint(tmp_path / 'pretrained.pth', width)
        if path.parent.name == 'cityscapes':
            complete_cityscapes(cfg, tmp_path)
        # Without warm-up: two of its steps move nothing.
        cfg.param_scheduler = []
        cfg.auto_scale_lr.enable = True
        cfg.default_hooks.checkpoint.interval = -1
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        runner = Runner.from_cfg(cfg)
        runner.stored = stored
        return runner

    return make


def complete_cityscapes(cfg, folder):
    """Keep the files of Cityscapes' own metric here, or leave it out."""
    coco, own = cfg.val_evaluator
    assert own.type == 'CityScapesMetric'
    own.outfile_prefix = str(folder / 'instance')
    if not HAS_CITYSCAPES:
        cfg.val_evaluator = cfg.test_evaluator = [coco]


@pytest.mark.parametrize('path', PATHS, ids=[path.stem for path in PATHS])
def test_trains_all_layers_and_validates(path, make_runner, monkeypatch):
    if path.parent.name == 'lvis':
        pytest.importorskip('lvis')
        # The last release on the package index asks old numpy for it.
        monkeypatch.setattr(np, 'float', float, raising=False)
    runner = make_runner(path)
    record = Record()
    runner.register_hook(record)
    runner.train()

    assert runner.iter == 2
    assert record.weights.keys() == runner.stored.keys()
    wrong = [
        key
        for key, value in runner.stored.items()
        if not torch.equal(value, record.weights[key])
    ]
    assert not wrong
    assert all(p.requires_grad for p in runner.model.parameters())
    # Every weight of the ResNet and every statistic has moved.
    still = [
        key
        for key, value in transferred(runner).items()
        if torch.equal(value, record.weights[key])
    ]
    assert not still
    assert METRICS[path.parent.name] <= record.metrics.keys()
    assert 0 < runner.message_hub.get_scalar('train/loss').current() < 100
    # --auto-scale-lr, here for one GPU in place of eight.
    groups = runner.optim_wrapper.optimizer.param_groups
    lr = (0.01 if path.parent.name == 'cityscapes' else 0.02) / 8
    found = [group['lr'] for group in groups]
    assert found == pytest.approx([lr] * len(groups))
    assert {group['weight_decay'] for group in groups} == {0, 1e-4}


def test_difficult_objects_of_voc_are_trained_but_not_tested(make_runner):
    runner = make_runner(VOC)
    trained = runner.train_dataloader.dataset[0]['data_samples']
    assert len(trained.gt_instances) == 3
    assert trained.ignored_instances.bboxes.shape == (0, 4)
    tested = runner.val_dataloader.dataset[0]['data_samples']
    assert len(tested.gt_instances) == 2
    assert len(tested.ignored_instances) == 1


def test_few_images_are_those_of_the_subset(detection_roots):
    """Names and folder are what mmdet's script writes."""
    folder = detection_roots['COCO_ROOT'] / 'semi_anns'
    names = {path.name for path in folder.iterdir()}
    assert {f'instances_train2017.1@{p}.json' for p in (1, 5, 10)} <= names


class TestFaultyData:
    def test_wrong_number_of_classes(self, make_runner):
        runner = make_runner(VOC)
        runner.model.roi_head.bbox_head.num_classes = 5
        with pytest.raises(AssertionError, match=r'`num_classes` \(5\)'):
            runner.train()

    def test_missing_annotations_are_named(self, make_runner, tmp_path):
        (tmp_path / 'coco').mkdir()
        with pytest.raises(
            FileNotFoundError, match='coco/annotations/instances_train2017'
        ):
            make_runner(COCO, COCO_ROOT=tmp_path / 'coco').train()

    def test_missing_xml_is_named(
        self, make_runner, detection_roots, tmp_path
    ):
        root = shutil.copytree(detection_roots['VOC_ROOT'], tmp_path / 'voc')
        (root / 'VOC2012/Annotations/2008_000002.xml').unlink()
        with pytest.raises(FileNotFoundError, match=r'2008_000002\.xml'):
            make_runner(VOC, VOC_ROOT=root).train()
