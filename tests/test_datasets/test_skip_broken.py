"""Broken files: an error that names them, or another sample of the set."""

import errno
import re

import pytest
import torch
from image_folders import write_image_folder
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from toy_dataset import Toy, toy

from mmunimoco.datasets import PartialLabels, RepeatLabeled
from mmunimoco.datasets.skip_broken import (
    BrokenImageError,
    broken_files,
    skip_limit,
)
from mmunimoco.engine.exact_loader import exact_loader

PUBLISHED = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=2,
        transforms=[[dict(type='RandomResizedCrop', scale=8)]],
    ),
    dict(type='PackInputs'),
]
FAST = [dict(type='LoadTwoCrops', scale=8), dict(type='PackInputs')]
PATHS = dict(published=PUBLISHED, fast=FAST)


@pytest.fixture
def folder(tmp_path):
    """Three classes of four images; three files of them are broken."""
    root = write_image_folder(tmp_path, per_class=4, size=16)
    whole = (root / 'class_1/0.png').read_bytes()
    (root / 'class_0/1.png').write_bytes(b'')
    (root / 'class_1/0.png').write_bytes(whole[: len(whole) // 2])
    (root / 'class_2/3.png').write_text('no image')  # the last one
    return root


def dataset(folder, skip_broken, pipeline=FAST):
    return dict(
        type='PartialLabels',
        label_ratio=1.0,
        skip_broken=skip_broken,
        dataset=dict(
            type='CustomDataset', data_prefix=str(folder), pipeline=pipeline
        ),
    )


def batches(config, workers, **options):
    loader = Runner.build_dataloader(
        dict(
            dataset=config,
            batch_size=5,
            num_workers=workers,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            **options,
        ),
        seed=0,
    )
    return list(exact_loader(loader, 0, 0))


@pytest.mark.parametrize('pipeline', PATHS)
@pytest.mark.parametrize('workers', [0, 2])
def test_by_default_an_error_names_the_file(folder, pipeline, workers):
    config = dataset(folder, 0, PATHS[pipeline])
    names = r'(class_0/1|class_1/0|class_2/3)\.png'
    with pytest.raises(Exception, match=names):
        batches(config, workers)


@pytest.mark.parametrize('pipeline', PATHS)
def test_each_comes_from_the_next_readable_file(folder, pipeline):
    partial = PartialLabels(
        dict(
            type='CustomDataset',
            data_prefix=str(folder),
            pipeline=PATHS[pipeline],
        ),
        label_ratio=0.5,
        skip_broken=3,
    )
    samples = [partial[i]['data_samples'] for i in range(12)]
    taken = list(range(12))
    taken[1], taken[4], taken[11] = 2, 5, 0
    for sample, index in zip(samples, taken, strict=True):
        info = partial.get_data_info(index)
        assert sample.img_path == info['img_path']
        # With its own label, or none where that is taken away.
        label = sample.gt_label.tolist() if 'gt_label' in sample else [None]
        assert label == [info.get('gt_label')]
    found = broken_files(dict(data_samples=samples))
    assert sorted(path[-13:] for path in found) == [
        f'class_{name}.png' for name in ('0/1', '1/0', '2/3')
    ]
    assert (
        sum(bool(broken_files(dict(data_samples=[s]))) for s in samples) == 3
    )


@pytest.mark.parametrize('pipeline', PATHS)
def test_batches_do_not_depend_on_workers(folder, pipeline):
    config = dataset(folder, 3, PATHS[pipeline])
    wanted = batches(config, 0)
    # Workers of the one unpickle the dataset, those of the other share it.
    spawned = dict(multiprocessing_context='spawn')
    options = spawned if pipeline == 'fast' else dict(persistent_workers=True)
    for workers in (1, 3) if pipeline == 'published' else (1,):
        got = batches(config, workers, **options)
        for one, other in zip(got, wanted, strict=True):
            for view, same in zip(one['inputs'], other['inputs'], strict=True):
                assert torch.equal(view, same)
            assert [s.to_dict() for s in one['data_samples']] == [
                s.to_dict() for s in other['data_samples']
            ]
            assert broken_files(one) == broken_files(other)


def test_one_too_many_names_all(folder):
    with pytest.raises(BrokenImageError) as caught:
        batches(dataset(folder, 2), 1)
    message = str(caught.value)
    assert '3 files are broken and skip_broken=2' in message
    for name in ('0/1.png', '1/0.png', '2/3.png'):
        assert len(re.findall(f'class_{name}', message)) >= 1
    # The same file again is not one more.
    partial = PartialLabels(**fields(dataset(folder, 3)))
    for _ in range(3):
        assert [partial[i] for i in (1, 4, 11)]


def fields(config):
    return {k: v for k, v in config.items() if k != 'type'}


class Failing(Toy):
    """Raises what an annotation says."""

    def __getitem__(self, idx):
        info = self.get_data_info(idx % len(self))
        if 'error' in info:
            raise info['error']
        return info


def failing(*infos, **options):
    leaf = Failing(list(infos), serialize_data=False)
    return PartialLabels(leaf, label_ratio=0.0, **options)


def test_other_errors():
    """They get the file's name, or stay as they are."""
    nameless = dict(img_path='a.png', error=RuntimeError('odd\nsize'))
    with pytest.raises(BrokenImageError, match=r'^a\.png: Runtim.*: odd size'):
        failing(nameless)[0]
    named = dict(img_path='a.png', error=FileNotFoundError('no a.png'))
    with pytest.raises(FileNotFoundError, match=r'^no a\.png$'):
        failing(named)[0]
    memory = dict(img_path='a.png', error=MemoryError('full'))
    files = dict(img_path='b.png', error=OSError(errno.EMFILE, 'many'))
    no_file = dict(error=ValueError('bug'))
    fine = dict(img_path='c.png')
    for info, kind in ((memory, MemoryError), (files, OSError)):
        with pytest.raises(kind):
            failing(info, fine, skip_broken=5)[0]
    with pytest.raises(ValueError, match='^bug$'):
        failing(no_file, fine, skip_broken=5)[0]


def test_nothing_can_be_read():
    broken = dict(img_path='a.png', error=ValueError('bad'))
    with pytest.raises(BrokenImageError, match='none of 3 samples'):
        failing(broken, broken, broken, skip_broken=5)[1]


def test_nobody_would_be_told():
    broken = dict(img_path='a.png', error=ValueError('bad'))
    with pytest.raises(BrokenImageError, match='PackInputs'):
        failing(broken, dict(img_path='b.png'), skip_broken=5)[0]


@pytest.mark.parametrize(
    ('value', 'error'), [(-1, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_bad_limits(value, error):
    with pytest.raises(error, match='skip_broken must be'):
        PartialLabels(toy([0]), label_ratio=1.0, skip_broken=value)


def test_limit_below_wrappers():
    partial = PartialLabels(toy([0, 1]), label_ratio=1.0, skip_broken=4)
    assert 'skip_broken=4' in repr(partial)
    repeated = RepeatLabeled(partial, times=2)
    loader = exact_loader(DataLoader(repeated, batch_size=1), 0, 0)
    assert skip_limit(loader.dataset) == 4
    assert skip_limit(toy([0])) == 0
