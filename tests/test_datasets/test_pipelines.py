"""What is known of pipelines before they run."""

import pytest
from mmcv.transforms import BaseTransform
from toy_dataset import Toy, toy

from mmunimoco.datasets import SkipBrokenImages
from mmunimoco.datasets.pipelines import channel_order, check_loaders

FLIP, PACK = dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')
TWO_CROPS = dict(type='LoadTwoCrops', scale=8)
IMAGE = dict(type='CheckedLoadImageFromFile')
CROP = dict(type='RandomResizedCrop', scale=8)
VIEWS = dict(type='MultiView', num_views=2, transforms=[[CROP]])


class OfAnotherPackage(BaseTransform):
    """May load images."""

    def transform(self, results):
        return results


def files(*pipeline):
    return toy([0], prefix='data/', pipeline=list(pipeline))


@pytest.mark.parametrize('pipeline', [[VIEWS, PACK], [FLIP], [PACK]])
def test_pipeline_without_a_loader_is_refused(pipeline):
    dataset = files(*pipeline)
    message = (
        r'pipeline of train \(.*no transform that loads .*data/0\.png.*Load'
    )
    with pytest.raises(ValueError, match=message):
        check_loaders({'train': dataset})


@pytest.mark.parametrize(
    'pipeline',
    [
        [TWO_CROPS, PACK],
        [IMAGE, VIEWS, PACK],
        [dict(type=OfAnotherPackage), VIEWS, PACK],
        [],
    ],
)
def test_other_pipelines_pass(pipeline):
    check_loaders({'train': files(*pipeline)})


def test_datasets_that_need_no_loader_pass():
    in_memory = Toy([dict(img=0, img_path='a')], pipeline=[VIEWS, PACK])
    check_loaders({'train': in_memory, 'val': [0.5]})


def test_the_image_is_not_blamed_for_a_missing_loader():
    dataset = SkipBrokenImages(files(CROP, PACK), max_broken=1)
    with pytest.raises(ValueError, match=r'SkipBrokenImages\.dataset \(Rand'):
        dataset[0]
    dataset = SkipBrokenImages(
        files(dict(type=OfAnotherPackage), CROP, PACK), max_broken=1
    )
    with pytest.raises(KeyError, match='img'):
        dataset[0]


def test_channel_order():
    gray = dict(IMAGE, color_type='grayscale')
    assert channel_order(files(TWO_CROPS, PACK)) == 'bgr'
    assert (
        channel_order(files(dict(IMAGE, imdecode_backend='pillow'))) == 'bgr'
    )
    assert channel_order(files(gray, PACK)) is None
    assert channel_order(files(IMAGE, dict(type=OfAnotherPackage))) is None
    assert channel_order(files(IMAGE, dict(type='NumpyToPIL'))) is None
    assert channel_order(files(PACK)) is None
