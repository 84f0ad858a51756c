"""The segmentation configs train, validate and resume, from a checkpoint.

On tiny data in the layouts of the real data sets. Reduced besides: crops,
scales and widths (an eighth), batch, workers, two steps instead of the
schedule. Depth, kinds of layers, optimisers and pipelines are the configs'.
"""

import copy
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from small_configs import (
    dicts_in,
    differing_tensors,
    divide_by_8,
    save_pretrained,
    shrink,
)
from transfer_data.ade20k import write_ade20k
from transfer_data.voc12aug import write_voc12aug

pytest.importorskip('mmseg')

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/benchmarks/mmsegmentation'
VOC = FOLDER / 'voc12aug/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'
CITYSCAPES = FOLDER / 'cityscapes/upernet_r50_4xb2-40k_cityscapes-512x1024.py'
ADE = FOLDER / 'ade20k/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'
VIT = FOLDER / 'ade20k/vit_vit-s16_mln_upernet_8xb2-80k_ade20k-512x512.py'
# One of each model and data set.
PATHS = [VOC, CITYSCAPES, ADE, VIT]

VIT_ARCH = dict(
    embed_dims=48, num_layers=12, num_heads=12, feedforward_channels=96
)
RESNET = dict(type='ResNet', depth=50, base_channels=8, stem_channels=8)
SMALL = dict(
    ResNet=dict(base_channels=8, stem_channels=8),
    VisionTransformer=dict(arch=VIT_ARCH),
    # In warm-up, weights move by less than float32 can represent.
    LinearLR=dict(start_factor=1.0),
    IterBasedTrainLoop=dict(max_iters=2, val_interval=2),
)
SIZES = {'scale', 'crop_size', 'size', 'img_size', 'stride'}
WIDTHS = {'in_channels', 'out_channels', 'channels'}
WIDTHS |= {'c1_in_channels', 'c1_channels'}


class Recorder(Hook):
    """Keeps the weights of the backbone before the first step."""

    def before_train(self, runner):
        self.state = backbone_state(runner)


def backbone_state(runner):
    state = runner.model.backbone.state_dict()
    return {key: value.clone() for key, value in state.items()}


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    # It needs pycocotools, which come with mmdet.
    from transfer_data.cityscapes import write_cityscapes

    root = tmp_path_factory.mktemp('segmentation')
    return dict(
        voc12aug=write_voc12aug(root / 'VOCdevkit/VOC2012'),
        cityscapes=write_cityscapes(root / 'cityscapes'),
        ade20k=write_ade20k(root / 'ade/ADEChallengeData2016'),
    )


@cache
def small_config(path):
    """Return the reduced config; to be copied before it is changed."""
    cfg = Config.fromfile(path)
    divide_by_8(cfg._cfg_dict, SIZES | WIDTHS)
    shrink(cfg, SMALL)
    cfg.train_dataloader.batch_size = 2
    cfg.default_hooks.checkpoint.interval = -1
    cfg.auto_scale_lr.enable = True
    cfg.randomness = dict(seed=0)
    return cfg


@pytest.fixture
def make_runner(roots, tmp_path):
    """Return a function: config path to reduced runner with a checkpoint."""
    vit = dict(type='MoCoV3ViT', arch=VIT_ARCH, img_size=32, patch_size=16)

    def make(path, root=None, **changes):
        cfg = copy.deepcopy(small_config(path))
        for node in dicts_in(cfg._cfg_dict):
            if 'data_root' in node:
                node['data_root'] = str(root or roots[path.parent.name])
        file = tmp_path / 'pretrained.pth'
        stored = save_pretrained(file, vit if path == VIT else RESNET)
        cfg.model.backbone.init_cfg.checkpoint = str(file)
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        cfg.merge_from_dict(changes)
        runner = Runner.from_cfg(cfg)
        runner.stored = stored
        return runner

    return make


@pytest.mark.parametrize('path', PATHS, ids=[path.stem for path in PATHS])
def test_trains_all_layers_and_validates(path, make_runner):
    runner = make_runner(path)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()

    assert runner.iter == 2
    resized = {'pos_embed'} if path == VIT else set()
    assert differing_tensors(recorder.state, runner.stored) == resized
    # Every weight and every statistic of the backbone has moved.
    moved = differing_tensors(backbone_state(runner), recorder.state)
    assert moved == set(runner.stored)

    logged = runner.message_hub.log_scalars
    for name in ('mIoU', 'mAcc', 'aAcc'):
        assert 0 <= logged[f'val/{name}'].current() <= 100
    assert 0 < logged['train/loss'].current() < 50
    (log,) = Path(runner.log_dir).glob('*.log')
    report, count = log.read_text(), len(runner.stored)
    assert f'matched: {count} of {count} tensors' in report
    assert "unused: 'neck.' (1 key)" in report
    # --auto-scale-lr, here for two images a step.
    lr = runner.cfg.optim_wrapper.optimizer.lr
    lr *= 2 / runner.cfg.auto_scale_lr.base_batch_size
    for group in runner.optim_wrapper.optimizer.param_groups:
        assert group['initial_lr'] == pytest.approx(lr)


def test_resumes_from_its_checkpoint_not_from_the_pretrained(
    make_runner, tmp_path
):
    length = {'train_cfg.max_iters': 3}
    saving = {'default_hooks.checkpoint.interval': 2}
    make_runner(VOC, **saving, **length).train()
    path = tmp_path / 'iter_2.pth'
    runner = make_runner(VOC, resume=True, load_from=str(path), **length)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    assert runner.iter == 3
    saved = torch.load(path, weights_only=False)['state_dict']
    assert not differing_tensors(
        recorder.state,
        {
            key.removeprefix('backbone.'): value
            for key, value in saved.items()
            if key.startswith('backbone.')
        },
    )


@pytest.mark.parametrize(
    ('path', 'maps', 'label', 'task'),
    [
        (VOC, 'SegmentationClass*', 25, 'train'),
        (ADE, 'annotations/validation', 150, 'train'),
        (ADE, 'annotations/validation', 150, 'test'),
    ],
)
def test_label_beyond_the_classes_is_named_with_its_file(
    path, maps, label, task, make_runner, roots, tmp_path
):
    name = path.parent.name
    root = Path(shutil.copytree(roots[name], tmp_path / name))
    for file in root.glob(f'{maps}/*.png'):
        # The files of ADE20K count from 1.
        value = label + (path == ADE)
        Image.new('L', Image.open(file).size, value).save(file)
    message = rf'{maps.rstrip("*")}.*\.png has pixels of the classes \[{label}'
    with pytest.raises(ValueError, match=message):
        getattr(make_runner(path, root), task)()


def test_missing_label_map_is_named(make_runner, roots, tmp_path):
    """For example where the converter to train ids was not run."""
    root = shutil.copytree(roots['cityscapes'], tmp_path / 'cityscapes')
    for file in root.rglob('*labelTrainIds.png'):
        file.unlink()
    with pytest.raises(FileNotFoundError, match='gtFine_labelTrainIds'):
        make_runner(CITYSCAPES, root).train()
