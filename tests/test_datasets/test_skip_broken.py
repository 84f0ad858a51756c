"""SkipBrokenImages: which samples replace broken files, and its limits."""

import errno
import pickle

import pytest
import torch
from image_folders import write_image_folder
from mmengine.runner import Runner
from mmengine.runner.runner import _SlicedDataset
from mmpretrain.registry import DATASETS
from toy_dataset import Toy, toy

from mmunimoco.datasets import PartialLabels, RepeatLabeled, SkipBrokenImages
from mmunimoco.datasets.skip_broken import (
    BrokenImageError,
    broken_files,
    skip_limit,
)
from mmunimoco.engine.exact.loader import exact_loader
from mmunimoco.utils.config_errors import named_field

PUBLISHED = [
    dict(type='CheckedLoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=2,
        transforms=[[dict(type='RandomResizedCrop', scale=8)]],
    ),
    dict(type='PackInputs'),
]
FAST = [dict(type='LoadTwoCrops', scale=8), dict(type='PackInputs')]
PIPELINES = dict(published=PUBLISHED, fast=FAST)
BROKEN = ['class_0/1.png', 'class_1/0.png', 'class_2/3.png']


@pytest.fixture
def folder(tmp_path):
    """Three classes of four images, three of them broken."""
    root = write_image_folder(tmp_path, per_class=4, size=16)
    first, second, last = (root / name for name in BROKEN)
    first.write_bytes(b'')
    second.write_bytes(second.read_bytes()[:100])
    last.write_text('no image')
    return root


def config(folder, max_broken=None, pipeline=FAST, label_ratio=1.0):
    dataset = dict(
        type='PartialLabels',
        label_ratio=label_ratio,
        dataset=dict(
            type='CustomDataset', data_prefix=str(folder), pipeline=pipeline
        ),
    )
    if max_broken is None:
        return dataset
    return dict(
        type='SkipBrokenImages', max_broken=max_broken, dataset=dataset
    )


def batches(dataset, workers):
    loader = Runner.build_dataloader(
        dict(
            dataset=dataset,
            batch_size=5,
            num_workers=workers,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        seed=0,
    )
    return list(exact_loader(loader, 0, 0))


@pytest.mark.parametrize('pipeline', PIPELINES)
@pytest.mark.parametrize('max_broken', [None, 0])
def test_without_skipping_an_error_names_the_file(
    folder, pipeline, max_broken
):
    dataset = DATASETS.build(config(folder, max_broken, PIPELINES[pipeline]))
    for index, name in zip((1, 4, 11), BROKEN, strict=True):
        with pytest.raises(BrokenImageError, match=name):
            dataset[index]


@pytest.mark.parametrize('pipeline', PIPELINES)
def test_the_next_readable_sample_replaces_a_broken_one(folder, pipeline):
    dataset = DATASETS.build(config(folder, 3, PIPELINES[pipeline], 0.5))
    samples = [dataset[i]['data_samples'] for i in range(12)]
    taken = list(range(12))
    taken[1], taken[4], taken[11] = 2, 5, 0
    for sample, index in zip(samples, taken, strict=True):
        info = dataset.get_data_info(index)
        assert sample.img_path == info['img_path']
        # With its own label, or none if that is hidden.
        label = sample.gt_label.tolist() if 'gt_label' in sample else [None]
        assert label == [info.get('gt_label')]
    per_sample = [broken_files(dict(data_samples=[s])) for s in samples]
    assert [i for i, found in enumerate(per_sample) if found] == [1, 4, 11]
    found = broken_files(dict(data_samples=samples))
    assert sorted(path[-13:] for path in found) == BROKEN


@pytest.mark.parametrize('pipeline', PIPELINES)
def test_batches_do_not_depend_on_workers(folder, pipeline):
    dataset = DATASETS.build(config(folder, 3, PIPELINES[pipeline]))
    expected = batches(dataset, 0)
    again = pickle.loads(pickle.dumps(dataset))
    for got in (batches(dataset, 2), batches(again, 0)):
        for one, other in zip(got, expected, strict=True):
            for view, same in zip(one['inputs'], other['inputs'], strict=True):
                assert torch.equal(view, same)
            assert [s.to_dict() for s in one['data_samples']] == [
                s.to_dict() for s in other['data_samples']
            ]
            assert broken_files(one) == broken_files(other)


def test_one_file_too_many(folder):
    with pytest.raises(BrokenImageError) as caught:
        batches(config(folder, 2), 1)
    message = str(caught.value)
    assert '3 files are broken, but max_broken=2' in message
    assert all(name in message for name in BROKEN)
    assert 'wrap the dataset' not in message.rpartition('are broken')[2]
    # Reading the same file again does not count again.
    dataset = DATASETS.build(config(folder, 3))
    for _ in range(3):
        assert [dataset[i] for i in (1, 4, 11)]


class Failing(Toy):
    """Raises the error in the annotation."""

    def __getitem__(self, idx):
        info = self.get_data_info(idx)
        if 'error' in info:
            raise info['error']
        return info


def failing(*infos, max_broken=5):
    leaf = Failing(list(infos), serialize_data=False)
    return SkipBrokenImages(leaf, max_broken)


BAD = dict(img_path='a.png', error=ValueError('bad'))
GOOD = dict(img_path='c.png')


def test_errors_get_the_name_of_the_file():
    nameless = dict(img_path='a.png', error=RuntimeError('odd\nsize'))
    with pytest.raises(BrokenImageError, match=r'^a\.png: Runtim.*: odd size'):
        failing(nameless, max_broken=0)[0]
    named = dict(img_path='a.png', error=FileNotFoundError('no a.png'))
    with pytest.raises(FileNotFoundError, match=r'^no a\.png$'):
        failing(named, max_broken=0)[0]


@pytest.mark.parametrize(
    'info, error',
    [
        (dict(img_path='a', error=MemoryError('full')), MemoryError),
        (dict(img_path='b', error=OSError(errno.EMFILE, 'many')), OSError),
        (dict(img_path='b', error=OSError(errno.ENFILE, 'many')), OSError),
        (dict(img_path='b', error=OSError(errno.ENOMEM, 'full')), OSError),
        (dict(error=ValueError('bug')), ValueError),
    ],
    ids=['memory', 'own files', 'all files', 'buffers', 'no file'],
)
def test_errors_that_are_not_of_the_file_pass(info, error):
    with pytest.raises(error) as caught:
        failing(info, GOOD)[0]
    assert not isinstance(caught.value, BrokenImageError)


def test_nothing_can_be_read():
    with pytest.raises(BrokenImageError, match='none of 3 samples'):
        failing(BAD, BAD, BAD)[1]


def test_needs_data_samples_to_report_broken_files():
    with pytest.raises(BrokenImageError, match='PackInputs'):
        failing(BAD, GOOD)[0]


@pytest.mark.parametrize(
    ('value', 'error'), [(-1, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_bad_limits(value, error):
    with pytest.raises(error, match='max_broken must be'):
        SkipBrokenImages(toy([0]), max_broken=value)


def test_composes_with_other_wrappers():
    dataset = toy([0, 1] * 5, metainfo=dict(classes=['a', 'b']))
    inside = PartialLabels(SkipBrokenImages(dataset, 4), label_ratio=0.5)
    outside = SkipBrokenImages(PartialLabels(dataset, label_ratio=0.5), 4)
    assert inside.get_gt_labels().tolist() == outside.get_gt_labels().tolist()
    assert (outside.get_gt_labels() >= 0).sum() == 5
    assert outside.CLASSES == ['a', 'b'] and len(outside) == 10
    assert 'max_broken=4' in repr(outside)
    assert skip_limit(inside) == skip_limit(RepeatLabeled(outside, 2)) == 4
    assert skip_limit(dataset) == 0
    # Of num_batch_per_epoch.
    assert skip_limit(_SlicedDataset(inside, 3)) == 4


@pytest.mark.parametrize(
    'change, field',
    [
        (dict(max_broken=-1), 'dataset'),
        (dict(label_ratio=2), 'dataset.dataset'),
        (dict(data_prefix='gone'), 'dataset.dataset.dataset'),
    ],
)
def test_errors_name_the_field_of_nested_wrappers(tmp_path, change, field):
    nested = config(tmp_path, 3)
    part = nested
    while not part.keys() & change.keys():
        part = part['dataset']
    part.update(change)
    with (
        pytest.raises(Exception, match=f'^train_dataloader.{field}: '),
        named_field('train_dataloader'),
    ):
        DATASETS.build(nested)
