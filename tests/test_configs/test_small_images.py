"""configs/own_data/*small-images.py: trained for real on a tiny folder.

Reduced: number of images, batch, workers, epochs. Not reduced: models, sizes,
optimisers.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import write_image_folder
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image
from small_configs import shrink

from mmunimoco.engine.launch import build_runner

FOLDER = Path(__file__).parents[2] / 'configs/own_data'
PRETRAIN = 'unimoco_resnet18_small-images'
TRANSFER = ('resnet18_linear_small-images', 'resnet18_finetune_small-images')


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function: the config of a name, for a folder of two classes."""
    root = tmp_path / 'images'
    for split, count in (('train', 20), ('val', 8)):
        write_image_folder(root / split, classes=2, per_class=count)
    gray = Image.open(root / 'train/class_0/0.png').convert('L')
    gray.save(root / 'train/class_0/0.png')
    monkeypatch.setenv('OWN_IMAGES', str(root))

    def load(name, **by_type):
        cfg = Config.fromfile(FOLDER / f'{name}.py')
        shrink(cfg, by_type, batch_size=16)
        cfg.train_cfg.update(max_epochs=2, val_interval=1)
        cfg.work_dir = str(tmp_path / name)
        cfg.randomness.seed = 0
        cfg.val_evaluator.topk = (1, 5)  # of two classes
        return cfg

    return load


def test_warnings_that_are_accepted(load):
    cfg = load(PRETRAIN, PreflightHook=dict(accept=('queue',)))
    cfg.train_cfg.max_epochs = 1
    runner = build_runner(cfg)
    runner.train()
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'training images, so the queue' not in log
    assert 'sees 16 images (1 process(es))' in log
    with pytest.raises(ValueError, match='accept takes queue, .*got quue'):
        build_runner(load(PRETRAIN, PreflightHook=dict(accept='quue')))


@pytest.mark.parametrize('launched', [True, False])
def test_accumulated_batches_count_for_the_learning_rate(load, launched):
    """Issue: 16 images x 32 at a base of 512 gave lr / 32."""
    cfg = load(PRETRAIN)
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.optim_wrapper.optimizer.lr = 0.06
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=32)
    cfg.train_cfg.max_epochs = 1
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.save_best = None
    # Without ours: mmpretrain's tools/train.py.
    runner = build_runner(cfg) if launched else Runner.from_cfg(cfg)
    runner.train()
    (group,) = runner.optim_wrapper.param_groups
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert group['initial_lr'] == pytest.approx(0.06 if launched else 0.03)
    warned = 'base_batch_size=16' in log
    assert warned == (not launched)
    assert runner.cfg.auto_scale_lr.base_batch_size == 32


def results(runner, metric):
    return runner.message_hub.get_scalar(metric).data[0].tolist()


def test_pretraining_and_transfer(load, tmp_path):
    """Also with a top-5 accuracy, which two classes do not have."""
    half = dict(label_ratio=0.5)
    runner = build_runner(load(PRETRAIN, PartialLabels=half))
    runner.train()
    head, dataset = runner.model.head, runner.train_dataloader.dataset
    assert runner.iter == 2 * (40 // 16)
    assert (head.label_queue >= 0).sum() in range(16, 49)  # half of 64
    assert len(head.queue) == 256 and len(dataset) == 40
    accuracy = results(runner, 'val/knn/top1')
    assert len(accuracy) == 2 and min(accuracy) > 60  # chance is 50
    assert 'val/knn/top5' not in runner.message_hub.log_scalars
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'model.head.queue_len is 256 for 40 training images' in log
    assert 'sees 16 images (1 process(es))' in log
    assert 'plain batch norm' not in log
    trained = {
        name: value.clone()
        for name, value in runner.model.backbone.state_dict().items()
    }
    for name in TRANSFER:
        cfg = load(name, PartialLabels=half)
        cfg.model.backbone.init_cfg.checkpoint = str(
            tmp_path / PRETRAIN / 'epoch_2.pth'
        )
        runner = build_runner(cfg)
        runner.train()
        assert len(runner.train_dataloader.dataset) == 20
        assert len(results(runner, 'val/accuracy/top1')) == 2
        assert 'val/accuracy/top5' not in runner.message_hub.log_scalars
        moved = any(
            not torch.equal(value, trained[key])
            for key, value in runner.model.backbone.state_dict().items()
        )
        assert moved == ('finetune' in name)


def test_inferencer_of_mmpretrain_predicts_as_the_test_does(load):
    """It loads the images, and takes only mmcv's loader out of a pipeline."""
    cfg = load('resnet18_finetune_small-images')
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    infer = ImageClassificationInferencer(cfg, pretrained=False, device='cpu')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    paths = [dataset.get_data_info(i)['img_path'] for i in (0, 15)]
    found = infer(paths)
    batch = default_collate([dataset[i] for i in (0, 15)])
    with torch.no_grad():
        expected = infer.model.test_step(batch)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            one['pred_scores'], other.pred_score, rtol=1e-5
        )


@pytest.mark.parametrize('name', [PRETRAIN, *TRANSFER])
@pytest.mark.parametrize('loader', ['train_dataloader', 'val_dataloader'])
def test_the_network_sees_rgb(load, tmp_path, name, loader):
    for path in (tmp_path / 'images').rglob('*.png'):
        pixels = np.full((48, 40, 3), (255, 128, 0), np.uint8)
        Image.fromarray(pixels).save(path)
    cfg = load(name)
    preprocessor = dict(type='ClsDataPreprocessor')
    preprocessor.update(cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        image = DATASETS.build(cfg[loader].dataset)[0]['inputs']
        preprocess = MODELS.build(preprocessor).eval()
    views = image if isinstance(image, list) else [image]
    for view in views:
        assert view.shape == (3, 32, 32)
        data = preprocess(dict(inputs=view[None], data_samples=None))
        red = (255 - 123.675) / 58.395
        blue = -103.53 / 57.375
        mean = data['inputs'][0].mean((1, 2))
        assert mean[[0, 2]].tolist() == pytest.approx([red, blue], abs=1e-3)


def test_size_of_the_images(load, monkeypatch):
    monkeypatch.setenv('OWN_IMAGES_SIZE', '64')
    for name in (PRETRAIN, *TRANSFER):
        cfg = load(name)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            for loader in (cfg.train_dataloader, cfg.val_dataloader):
                views = DATASETS.build(loader.dataset)[0]['inputs']
                view = views[0] if isinstance(views, list) else views
                assert view.shape == (3, 64, 64)
