"""Warnings if red is taken for blue."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import MODELS
from toy_dataset import toy

from mmunimoco.engine.checks.channel_order import warn_of_channel_order

CONFIGS = Path(__file__).parents[3] / 'configs'
CIFAR = 'unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10.py'
LOADER = [dict(type='LoadTwoCrops', scale=32)]


class SmallCIFAR(CIFAR10):
    """Without files."""

    def load_data_list(self):
        return [dict(img=0, gt_label=0)]


def warnings(log, config, dataset, **changes):
    """Texts of the warnings for a config with other images."""
    cfg = Config.fromfile(CONFIGS / config)
    cfg.data_preprocessor.update(changes)
    log.clear()
    warn_of_channel_order(
        cfg, MODELS.build(cfg.data_preprocessor), {'train': dataset}
    )
    return log.messages


def cifar(**options):
    return SmallCIFAR(data_root='none', split='train', **options)


def test_files_on_the_recipe_for_cifar(log):
    files = toy([0], pipeline=LOADER)
    colours, mean = warnings(log, CIFAR, files)
    assert colours.startswith('train gives images in BGR order, but colour')
    assert 'data_preprocessor.to_rgb=True' in colours
    assert 'not in the RGB order of its mean [125.307' in mean
    assert 'set data_preprocessor.to_rgb=True' in mean
    # As the warnings say.
    assert warnings(log, CIFAR, files, to_rgb=True) == []
    (mean,) = warnings(log, CIFAR, files, input_order='bgr')
    assert 'RGB order of its mean' in mean
    assert not warnings(log, CIFAR, files, input_order='bgr', mean=[1.0, 2, 3])


def test_cifar_on_a_recipe_for_files(log):
    assert warnings(log, CIFAR, cifar()) == []
    colours, mean = warnings(log, CIFAR, cifar(), to_rgb=True)
    assert 'gives images in RGB order' in colours and 'to_rgb=False' in colours
    assert 'set data_preprocessor.to_rgb=False' in mean


@pytest.mark.parametrize('name', ['resnet50_1xb256', 'resnet50_8xb32'])
def test_shipped_recipes_for_files_are_right(log, name):
    (path,) = CONFIGS.glob(f'unimoco/unimoco_{name}-coslr-200e_in1k.py')
    files = toy([0], pipeline=LOADER)
    assert warnings(log, path.relative_to(CONFIGS), files) == []
    # Caffe's statistics, in BGR order, but reversed images.
    mean = [103.53, 116.28, 123.675]
    (text,) = warnings(log, path.relative_to(CONFIGS), files, mean=mean)
    assert 'not in the BGR order of its mean' in text
    assert 'set data_preprocessor.to_rgb=False' in text


def test_weights_of_gray(log):
    def views(*weights):
        gray = dict(type='RandomGrayscale', channel_weights=weights)
        return dict(type='MultiView', num_views=2, transforms=[[gray]])

    rgb, bgr = views(0.2989, 0.587, 0.114), views(0.114, 0.587, 0.2989)
    assert warnings(log, CIFAR, cifar(pipeline=[rgb])) == []
    (text,) = warnings(log, CIFAR, cifar(pipeline=[bgr]))
    assert 'channel_weights=(0.114, 0.587, 0.2989) of RandomGray' in text
