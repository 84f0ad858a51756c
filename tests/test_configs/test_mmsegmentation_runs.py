"""The segmentation configs train and validate, from a checkpoint.

On tiny data in the layouts of the real data sets; what else is reduced:
segmentation_configs.py.
"""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from segmentation_configs import (
    ADE,
    CITYSCAPES,
    PATHS,
    VIT,
    VOC,
    load,
    make_small,
    write_checkpoint,
)
from transfer_data.ade20k import write_ade20k
from transfer_data.voc12aug import write_voc12aug

pytest.importorskip('mmseg')

WRONG_LABEL = 25


class Photograph(Hook):
    """Keep the weights of the backbone as they are before the first step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 0:
            self.state = backbone_state(runner)


def backbone_state(runner):
    state = runner.model.backbone.state_dict()
    return {key: value.clone() for key, value in state.items()}


def stored_state(runner):
    path = Path(runner.work_dir) / 'pretrained.pth'
    state = torch.load(path, weights_only=True)['state_dict']
    prefix = 'backbone.'
    return {
        key[len(prefix) :]: value
        for key, value in state.items()
        if key.startswith(prefix)
    }


def differing(left, right):
    """Keys of what two state dicts hold otherwise."""
    assert left.keys() == right.keys()
    return {
        key
        for key, value in left.items()
        if value.shape != right[key].shape
        or not torch.equal(value, right[key])
    }


def set_data_root(node, root):
    """Replace every ``data_root`` in nested dicts and lists."""
    if isinstance(node, dict):
        if 'data_root' in node:
            node['data_root'] = str(root)
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            set_data_root(item, root)


@pytest.fixture(scope='session')
def segmentation_roots(tmp_path_factory):
    # It takes pycocotools, which come with mmdet.
    from transfer_data.cityscapes import write_cityscapes

    root = tmp_path_factory.mktemp('segmentation')
    return dict(
        voc12aug=write_voc12aug(root / 'VOCdevkit/VOC2012'),
        cityscapes=write_cityscapes(root / 'cityscapes'),
        ade20k=write_ade20k(root / 'ade/ADEChallengeData2016'),
    )


@pytest.fixture
def make_runner(segmentation_roots, tmp_path, monkeypatch):
    """Return a function: config path to reduced runner with a checkpoint."""

    def make(path, root=None, **decode_head):
        file = tmp_path / 'pretrained.pth'
        write_checkpoint(file, vit=path == VIT)
        cfg = load(path)
        make_small(cfg)
        set_data_root(
            cfg._cfg_dict, root or segmentation_roots[path.parent.name]
        )
        cfg.model.backbone.init_cfg.checkpoint = str(file)
        cfg.model.decode_head.update(decode_head)
        cfg.auto_scale_lr.enable = True
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = tmp_path.name
        return Runner.from_cfg(cfg)

    return make


@pytest.fixture
def copy_of(segmentation_roots, tmp_path):
    """Return a function: name of a data set to a copy of it, to be damaged."""
    return lambda name: Path(
        shutil.copytree(segmentation_roots[name], tmp_path / name)
    )


@pytest.mark.parametrize('path', PATHS, ids=[path.stem for path in PATHS])
def test_trains_all_layers_and_validates(path, make_runner):
    runner = make_runner(path)
    photograph = Photograph()
    runner.register_hook(photograph)
    runner.train()

    assert runner.iter == 2
    stored = stored_state(runner)
    resized = {'pos_embed'} if path == VIT else set()
    assert differing(photograph.state, stored) == resized
    frozen = [
        name
        for name, value in runner.model.named_parameters()
        if not value.requires_grad
    ]
    assert not frozen
    # Every weight and every statistic of the backbone has moved.
    moved = differing(backbone_state(runner), photograph.state)
    assert moved == set(stored)

    logged = runner.message_hub.log_scalars
    for name in ('mIoU', 'mAcc', 'aAcc'):
        assert 0 <= logged[f'val/{name}'].current() <= 100
    assert 0 < logged['train/loss'].current() < 50
    (log,) = Path(runner.log_dir).glob('*.log')
    report = log.read_text()
    assert f'matched: {len(stored)} of {len(stored)} tensors' in report
    assert "unused: 'neck.' (1 key)" in report
    # --auto-scale-lr, here for two images a step.
    cfg = load(path)
    lr = cfg.optim_wrapper.optimizer.lr
    lr *= 2 / cfg.auto_scale_lr.base_batch_size
    for group in runner.optim_wrapper.optimizer.param_groups:
        assert group['initial_lr'] == pytest.approx(lr)


class TestFaultyData:
    def test_label_beyond_the_classes(self, make_runner, copy_of):
        root = copy_of('voc12aug')
        for file in root.glob('SegmentationClass*/*.png'):
            size = Image.open(file).size
            Image.new('L', size, WRONG_LABEL).save(file)
        message = rf'\.png has pixels of the classes \[{WRONG_LABEL}\]'
        with pytest.raises(ValueError, match=message):
            make_runner(VOC, root).train()

    @pytest.mark.parametrize('task', ['train', 'test'])
    def test_label_beyond_the_classes_in_evaluation(
        self, make_runner, copy_of, task
    ):
        root = copy_of('ade20k')
        for file in root.glob('annotations/validation/*.png'):
            size = Image.open(file).size
            Image.new('L', size, 151).save(file)
        message = r'annotations/validation.*the classes \[150\]'
        with pytest.raises(ValueError, match=message):
            getattr(make_runner(ADE, root), task)()

    def test_another_number_of_classes(self, make_runner):
        runner = make_runner(VOC, num_classes=22)
        with pytest.raises(
            ValueError, match=r'decode_head\.num_classes is 22'
        ):
            runner.train()

    def test_missing_list_is_named(self, make_runner, copy_of):
        root = copy_of('voc12aug')
        (root / 'ImageSets/Segmentation/aug.txt').unlink()
        with pytest.raises(AssertionError, match=r'Segmentation/aug\.txt'):
            make_runner(VOC, root).train()

    def test_missing_label_map_is_named(self, make_runner, copy_of):
        """Such as where the converter for the train ids was not run."""
        root = copy_of('cityscapes')
        for file in root.rglob('*labelTrainIds.png'):
            file.unlink()
        with pytest.raises(FileNotFoundError, match='gtFine_labelTrainIds'):
            make_runner(CITYSCAPES, root).train()

    def test_missing_folder_is_named(self, make_runner, copy_of):
        root = copy_of('ade20k')
        shutil.rmtree(root / 'images/training')
        with pytest.raises(FileNotFoundError, match='images/training'):
            make_runner(ADE, root).train()
