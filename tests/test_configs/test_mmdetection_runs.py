"""The detection configs train, validate and resume, from a checkpoint.

On tiny data in the layouts of the real data sets. Reduced besides: depth and
widths (ResNet-18), size of images, number of proposals and RoIs, two steps
instead of the schedule.
"""

import runpy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from small_configs import dicts_in, differing_tensors, save_pretrained, shrink

mmdet = pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks/mmdetection'
C4 = FOLDER / 'coco/mask-rcnn_r50-c4_ms-1x_coco.py'
FEW = FOLDER / 'coco/mask-rcnn_r50_fpn_ms-9k_coco-1pct.py'
(VOC,) = FOLDER.glob('voc0712/*.py')
(LVIS,) = FOLDER.glob('lvis/*.py')
(CITYSCAPES,) = FOLDER.glob('cityscapes/*.py')
# One of each model, data set and kind of schedule.
PATHS = [C4, FEW, VOC, LVIS, CITYSCAPES]
METRIC_NAMES = dict(
    coco={'coco/bbox_mAP', 'coco/segm_mAP'},
    voc0712={'pascal_voc/mAP', 'pascal_voc/AP50', 'pascal_voc/AP75'},
    lvis={'lvis/bbox_AP', 'lvis/segm_AP'},
    cityscapes={'coco/bbox_mAP', 'coco/segm_mAP'},
)
HAS_CITYSCAPES = find_spec('cityscapesscripts') is not None
if HAS_CITYSCAPES:
    METRIC_NAMES['cityscapes'] |= {'cityscapes/mAP', 'cityscapes/AP@50'}
SMALL = dict(
    RandomChoiceResize=dict(scales=[(96, 64), (128, 72)]),
    RandomResize=dict(scale=[(128, 64), (128, 72)]),
    Resize=dict(scale=(96, 64)),
    EpochBasedTrainLoop=dict(max_epochs=1),
    IterBasedTrainLoop=dict(max_iters=2, val_interval=2),
)
SPLIT = Path(mmdet.__file__).parent / '.mim/tools/misc/split_coco.py'


class Recorder(Hook):
    """Keeps the weights before the first step and the metrics."""

    def before_train(self, runner):
        self.weights = transferred(runner)

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


def transferred(runner):
    """Return what a checkpoint fills, under the names it has there."""
    model = runner.model
    state = dict(model.backbone.state_dict())
    if model.roi_head.with_shared_head:
        head = model.roi_head.shared_head.state_dict()
        state |= {k: v for k, v in head.items() if not k.startswith('norm.')}
    return {key: value.clone() for key, value in state.items()}


def shrink_model(model):
    """Make it a ResNet-18 detector, in place; return the stem's width."""
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


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    """Folder of each tiny data set by the variable that names it."""
    from transfer_data.cityscapes import write_cityscapes
    from transfer_data.coco import write_coco
    from transfer_data.lvis import write_lvis
    from transfer_data.voc import write_voc

    root = tmp_path_factory.mktemp('detection')
    # 1 % of a hundred images, chosen by mmdet's script as for the real data.
    coco = write_coco(root / 'coco', size=(64, 48), train_images=100)
    split = runpy.run_path(str(SPLIT))['split_coco']
    split(str(coco), str(coco / 'semi_anns'), 1, 1)
    return dict(
        COCO_ROOT=coco,
        VOC_ROOT=write_voc(root / 'VOCdevkit'),
        LVIS_ROOT=write_lvis(root / 'lvis_v1'),
        CITYSCAPES_ROOT=write_cityscapes(root / 'cityscapes'),
    )


@pytest.fixture
def make_runner(roots, tmp_path, monkeypatch):
    """Return a function: config path to reduced runner with a checkpoint."""
    monkeypatch.setenv('PRETRAINED', str(tmp_path / 'pretrained.pth'))
    for name, root in roots.items():
        monkeypatch.setenv(name, str(root))

    def make(path, **changes):
        cfg = Config.fromfile(path)
        shrink(cfg, SMALL)
        for loader in dicts_in(cfg._cfg_dict):
            if loader.get('sampler', {}).get('type') == 'DefaultSampler':
                loader.num_batch_per_epoch = 2
        width = shrink_model(cfg.model)
        stored = save_pretrained(
            tmp_path / 'pretrained.pth',
            dict(
                type='ResNet',
                depth=18,
                stem_channels=width,
                base_channels=width,
            ),
        )
        if path == CITYSCAPES:
            complete_cityscapes(cfg, tmp_path)
        cfg.param_scheduler = []  # steps of warm-up move nothing
        cfg.auto_scale_lr.enable = True
        cfg.default_hooks.checkpoint.interval = -1
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        cfg.merge_from_dict(changes)
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
    if path == LVIS:
        pytest.importorskip('lvis')
        # The last release on the package index needs an old numpy for it.
        monkeypatch.setattr(np, 'float', float, raising=False)
    runner = make_runner(path)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()

    assert runner.iter == 2
    assert not differing_tensors(recorder.weights, runner.stored)
    # Every weight and every statistic of the ResNet has moved.
    moved = differing_tensors(transferred(runner), recorder.weights)
    assert moved == set(runner.stored)
    assert METRIC_NAMES[path.parent.name] <= recorder.metrics.keys()
    assert 0 < runner.message_hub.get_scalar('train/loss').current() < 100
    # --auto-scale-lr, here for one GPU instead of eight.
    groups = runner.optim_wrapper.optimizer.param_groups
    lr = (0.01 if path == CITYSCAPES else 0.02) / 8
    assert [group['lr'] for group in groups] == pytest.approx(
        [lr] * len(groups)
    )
    # Norms are not decayed.
    assert {group['weight_decay'] for group in groups} == {0, 1e-4}


def test_resumes_from_its_checkpoint_not_from_the_pretrained(
    make_runner, tmp_path
):
    length = {'train_cfg.max_iters': 3}
    saving = {'default_hooks.checkpoint.interval': 2}
    make_runner(FEW, **saving, **length).train()
    path = tmp_path / 'iter_2.pth'
    saved = torch.load(path, weights_only=False)
    runner = make_runner(FEW, resume=True, load_from=str(path), **length)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    assert runner.iter == 3
    prefix = 'backbone.'
    assert not differing_tensors(
        recorder.weights,
        {
            key.removeprefix(prefix): value
            for key, value in saved['state_dict'].items()
            if key.startswith(prefix)
        },
    )


def test_difficult_objects_of_voc_are_trained_but_not_tested(make_runner):
    runner = make_runner(VOC)
    trained = runner.train_dataloader.dataset[0]['data_samples']
    assert len(trained.gt_instances) == 3
    assert trained.ignored_instances.bboxes.shape == (0, 4)
    tested = runner.val_dataloader.dataset[0]['data_samples']
    assert len(tested.gt_instances) == 2
    assert len(tested.ignored_instances) == 1
