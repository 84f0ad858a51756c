"""Checks of segmentation before and during a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from PIL import Image
from torch import nn
from toy_dataset import toy

from mmunimoco.datasets import MaskFolders
from mmunimoco.engine import PreflightHook
from mmunimoco.engine.checks.masks import MASKS_READ


def train(dataset, model, val_dataset=None):
    """Start training as far as the hook is concerned."""
    loaders = [SimpleNamespace(dataset=x) for x in (dataset, val_dataset)]
    runner = SimpleNamespace(
        model=model,
        train_dataloader=loaders[0],
        val_dataloader=loaders[1],
        val_loop=val_dataset,
        cfg={},
        world_size=1,
    )
    PreflightHook().before_train(runner)


class Heads(nn.Module):
    """A segmentor of mmseg with an auxiliary head or several."""

    def __init__(self, classes, *auxiliary):
        super().__init__()
        heads = [nn.Identity() for _ in (classes, *auxiliary)]
        for head, count in zip(heads, (classes, *auxiliary), strict=True):
            head.num_classes = count
        self.decode_head = heads[0]
        self.auxiliary_head = nn.ModuleList(heads[1:])


def test_heads_have_the_classes_of_the_dataset():
    dataset = toy([0], metainfo=dict(classes='abc'))
    train(dataset, Heads(3, 3))
    with pytest.raises(ValueError, match=r'auxiliary_head\.0\.num_classes is'):
        train(dataset, Heads(3, 4, 3))


def test_masks_have_classes_of_the_heads():
    runner = SimpleNamespace(model=Heads(3))
    sample = DataSample(metainfo=dict(seg_map_path='a.png'))
    sample.set_field(
        PixelData(data=torch.tensor([[[0, 2, 255]]])), 'gt_sem_seg'
    )
    batch = dict(data_samples=[DataSample(), sample])
    hook = PreflightHook()
    hook.before_train_iter(runner, 0, batch)
    sample.gt_sem_seg.data[0, 0, :2] = torch.tensor([4, 3])
    for check_batch in (
        hook.before_train_iter,
        hook.before_val_iter,
        hook.before_test_iter,
    ):
        with pytest.raises(ValueError, match=r'a\.png has .*classes \[3, 4\]'):
            check_batch(runner, 0, batch)
    runner.model = nn.Module()  # of another host
    hook.before_train_iter(runner, 0, batch)


@pytest.fixture
def folders(tmp_path):
    """Return a function that writes masks of these values and reads them."""

    def build(*masks, classes=('background', 'cat'), kind=MaskFolders):
        for name in ('images', 'masks'):
            (tmp_path / name).mkdir(exist_ok=True)
        for index, values in enumerate(masks):
            mask = np.resize(np.array(values, np.uint8), (4, 4))
            Image.fromarray(mask).save(tmp_path / f'masks/{index}.png')
            (tmp_path / f'images/{index}.jpg').touch()
        load = dict(type='LoadAnnotations', with_seg=True, with_bbox=False)
        return kind(
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            metainfo=dict(classes=classes),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(load, with_label=False),
            ],
        )

    return build


def test_black_and_white_masks_are_refused(folders, log):
    good = folders([0], [0, 255], [0, 1])
    train(good, Heads(2), good)
    assert 'WARNING' not in log.text
    wrong = folders([0], [0, 255], [0, 255])
    message = (
        r'in 3 of 3 masks of train_dataloader.dataset all pixels are 0 \('
        r'background\) and 255.*write 1, not 255'
    )
    with pytest.raises(ValueError, match=message):
        train(wrong, Heads(2))
    # mIoU of a test would be 100.
    runner = SimpleNamespace(
        model=Heads(2),
        test_loop=None,
        test_dataloader=SimpleNamespace(dataset=wrong),
    )
    with pytest.raises(ValueError, match='masks of test_dataloader.dataset'):
        PreflightHook().before_test(runner)
    with pytest.raises(ValueError, match='all pixels are 255'):
        train(folders([255], [255], [255]), Heads(2))


def test_class_without_pixels_is_a_warning(folders, log):
    classes = ('background', 'cat', 'dog')
    train(folders([0, 1], [0], classes=classes), Heads(3))
    assert (
        'No pixel in 2 of 2 masks of train_dataloader.dataset is of the '
        in (log.text)
    )
    assert "classes ['dog']" in log.text


def test_few_masks_are_read_and_none_of_benchmarks(folders, monkeypatch, log):
    class Benchmark(MaskFolders):
        METAINFO = dict(classes=('background', 'cat'))

    read = []
    monkeypatch.setattr(
        'mmunimoco.engine.checks.masks._values_of_mask',
        lambda loader, info: read.append(info['seg_map_path']) or {0},
    )
    many = folders(*[[0]] * (MASKS_READ + 5))
    train(many, Heads(2))
    assert len(set(read)) == MASKS_READ
    assert f'{MASKS_READ} of {MASKS_READ + 5} masks' in log.text
    train(folders(kind=Benchmark), Heads(2))
    assert len(read) == MASKS_READ


def test_masks_that_are_colours_or_broken_are_named(folders, tmp_path):
    dataset = folders([0, 1])
    path = tmp_path / 'masks/0.png'
    Image.new('RGB', (4, 4)).save(path)
    with pytest.raises(ValueError, match=r'0\.png has the shape \(4, 4, 3\)'):
        train(dataset, Heads(2))
    path.write_bytes(b'')
    with pytest.raises(ValueError, match=r'0\.png does not load'):
        train(dataset, Heads(2))
