"""The hook that puts a data set's images on the device."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.registry import MODELS
from toy_dataset import Toy

from mmunimoco.datasets import PartialLabels
from mmunimoco.engine import ImagesToDeviceHook
from mmunimoco.engine.images_to_device_hook import stack_images


def draw_images(n=5, shape=(8, 9, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), np.uint8)


def dataset_of(images):
    infos = [
        dict(img=image, gt_label=i % 2, img_path=f'{i}.png')
        for i, image in enumerate(images)
    ]
    pipeline = [
        dict(type='IndexAsImage'),
        dict(type='PackInputs'),
    ]
    return Toy(infos, pipeline=pipeline)


def runner_of(preprocessor, dataset):
    return SimpleNamespace(
        model=SimpleNamespace(data_preprocessor=preprocessor),
        train_dataloader=SimpleNamespace(dataset=dataset),
        logger=logging.getLogger('test'),
    )


@pytest.mark.parametrize(
    'wrap',
    [
        lambda dataset: dataset,
        lambda dataset: PartialLabels(dataset, label_ratio=0.5),
        lambda dataset: RepeatDataset(dataset, times=3),
    ],
)
def test_indices_of_the_pipeline_name_the_images(wrap):
    images = draw_images()
    dataset = wrap(dataset_of(images))
    preprocessor = MODELS.build(dict(type='TwoViewAugment'))
    runner = runner_of(preprocessor, dataset)
    ImagesToDeviceHook().before_train(runner)
    for i in range(len(dataset)):
        index = dataset[i]['inputs']
        assert index.dtype == torch.int64 and index.dim() == 0
        kept = preprocessor.images[index].permute(1, 2, 0).numpy()
        assert np.array_equal(kept, images[i % len(images)])


def test_concatenated_sets_are_refused():
    parts = [dataset_of(draw_images(seed=seed)) for seed in (0, 1)]
    with pytest.raises(ValueError, match='two images have the sample_idx 0'):
        stack_images(ConcatDataset(parts))


@pytest.mark.parametrize(
    ('images', 'told'),
    [
        ([None], 'image 0 is not in memory'),
        ([*draw_images(2), *draw_images(1, (9, 9, 3))], 'of one size'),
        (draw_images(2, (8, 9)), 'of one size'),
        (draw_images(2).astype(np.float32), 'uint8'),
    ],
)
def test_unfit_images(images, told):
    with pytest.raises(ValueError, match=told):
        stack_images(dataset_of(images))


def test_another_preprocessor_is_an_error():
    preprocessor = MODELS.build(dict(type='SelfSupDataPreprocessor'))
    runner = runner_of(preprocessor, dataset_of(draw_images()))
    with pytest.raises(ValueError, match='it is SelfSupDataPreprocessor'):
        ImagesToDeviceHook().before_train(runner)
