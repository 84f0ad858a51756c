"""PartialLabels: what it says, and what it refuses."""

import logging

import pytest
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset
from torch.utils.data import TensorDataset
from toy_dataset import labeled, toy

from mmunimoco.datasets import PartialLabels

CLASSES = [i % 5 for i in range(100)]


class Messages(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def messages():
    handler = Messages()
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield handler.records
    logger.removeHandler(handler)


def test_says_how_many_are_labeled(messages):
    PartialLabels(toy(CLASSES + [None] * 7), label_ratio=0.1)
    assert [r.getMessage() for r in messages] == [
        'PartialLabels: 10 of 100 images (10.0 %) of 5 of 5 classes keep '
        'their label; 7 more images had none'
    ]


def test_warns_of_classes_without_a_label(messages):
    PartialLabels(toy([0] * 50 + [1, 2, 3]), label_ratio=0.04)
    text = [(r.levelname, r.getMessage()) for r in messages]
    assert text[0][1].startswith('PartialLabels: 2 of 53 images (3.8 %) of 1')
    assert text[1][0] == 'WARNING'
    assert '3 of 4 classes have no labeled image' in text[1][1]


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        ({}, ValueError, 'either label_ratio or label_list'),
        (dict(label_ratio=0.1, label_list='x'), ValueError, 'either'),
        (dict(label_ratio=-0.1), ValueError, r'in \[0, 1\], got -0.1'),
        (dict(label_ratio=10), ValueError, r'in \[0, 1\], got 10'),
        (dict(label_ratio=float('nan')), ValueError, 'got nan'),
        (dict(label_ratio='0.1'), TypeError, "a number, got '0.1'"),
        (dict(label_ratio=True), TypeError, 'a number, got True'),
        (dict(label_list=''), ValueError, 'empty path'),
        (dict(label_list='  '), ValueError, 'empty path'),
        (dict(label_list=['a.png']), TypeError, 'path of a text file'),
        (dict(label_list='no/10pct.txt'), FileNotFoundError, 'no/10pct.txt'),
        (dict(label_ratio=0.1, seed=None), TypeError, 'seed.*None'),
        (dict(label_ratio=0.1, seed=0.5), TypeError, 'seed.*0.5'),
    ],
)
@pytest.mark.parametrize('lazy_init', [False, True])
def test_bad_arguments(kwargs, error, message, lazy_init):
    """A wrong list fails even before the annotations are read."""
    with pytest.raises(error, match=message):
        PartialLabels(toy(CLASSES), **kwargs, lazy_init=lazy_init)


@pytest.mark.parametrize('label', ['cat', 0.5, -2, [0, -1], [0, 'x']])
def test_bad_labels(label):
    with pytest.raises(ValueError, match='sample 1 of Toy.*class id'):
        PartialLabels(toy([0, label]), label_ratio=0.5)


def test_ratio_of_nothing():
    with pytest.raises(ValueError, match='none of the 4 images has a label'):
        PartialLabels(toy([None] * 4), label_ratio=0.1)
    assert labeled(PartialLabels(toy([None] * 4), label_ratio=0.0)) == []


class LabelMaker(CustomDataset):
    """A label that is not in the annotations cannot be taken out of them."""

    def get_data_info(self, idx):
        return dict(super().get_data_info(idx), gt_label=idx % 2)


class Sharpener(CustomDataset):
    def get_data_info(self, idx):
        return dict(super().get_data_info(idx), sharp=True)


def test_overridden_annotations(imagenet_folder):
    with pytest.raises(TypeError, match='LabelMaker.get_data_info makes'):
        PartialLabels(
            LabelMaker(data_prefix=str(imagenet_folder)), label_ratio=0.5
        )
    fine = PartialLabels(
        Sharpener(data_prefix=str(imagenet_folder)), label_ratio=0.5
    )
    assert len(labeled(fine)) == 11 and fine.get_data_info(0)['sharp']


def test_other_kinds_of_datasets():
    with pytest.raises(TypeError, match='got TensorDataset'):
        PartialLabels(TensorDataset(), label_ratio=0.5)

    class Odd:
        def full_init(self):
            pass

    with pytest.raises(TypeError, match='Odd is neither'):
        PartialLabels(Odd(), label_ratio=0.5)
