"""Real image files to batches, as a Runner loads them."""

import pytest
import torch
from mmengine.runner import Runner

TWO_VIEWS = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=2,
        transforms=[
            [
                dict(type='RandomResizedCrop', scale=16),
                dict(type='RandomFlip', prob=0.5),
            ]
        ],
    ),
    dict(type='PackInputs'),
]


def load(dataset, num_workers, **kwargs):
    """One epoch of {file name: DataSample}; checks the views on the way."""
    loader = Runner.build_dataloader(
        dict(
            dataset=dataset,
            batch_size=4,
            num_workers=num_workers,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            **kwargs,
        ),
        seed=0,
    )
    samples = {}
    for batch in loader:
        assert len(batch['inputs']) == 2
        for view in batch['inputs']:
            assert view.dtype == torch.uint8
            assert view.shape == (len(batch['data_samples']), 3, 16, 16)
        for sample in batch['data_samples']:
            samples[sample.img_path] = sample
    return samples


def labels(samples):
    """{file name: class id or None}."""
    found = {}
    for path, sample in samples.items():
        found[path] = None
        if 'gt_label' in sample:
            assert sample.gt_label.shape == (1,)
            found[path] = int(sample.gt_label)
    return found


def truth(folder):
    return {
        str(path): label
        for label, sub in enumerate(sorted(folder.iterdir()))
        for path in sub.iterdir()
    }


@pytest.mark.parametrize('num_workers', [0, 2])
def test_ratio(imagenet_folder, num_workers):
    dataset = dict(
        type='PartialLabels',
        label_ratio=0.5,
        dataset=dict(
            type='CustomDataset',
            data_prefix=str(imagenet_folder),
            pipeline=TWO_VIEWS,
        ),
    )
    found = labels(load(dataset, num_workers))
    right = truth(imagenet_folder)
    assert found.keys() == right.keys()
    kept = {path: c for path, c in found.items() if c is not None}
    assert len(kept) == 11  # of 22, in classes of 10, 7, 4 and 1
    assert all(right[path] == c for path, c in kept.items())
    counts = [list(kept.values()).count(c) for c in range(4)]
    assert counts[0] == 5 and counts[1] in (3, 4) and counts[2] == 2
    assert found == labels(load(dataset, num_workers))


@pytest.mark.parametrize('num_workers', [0, 2])
def test_list(imagenet_folder, tmp_path, num_workers):
    names = ['n01440764_3.png', 'n01443537_0.JPEG', 'n01491361_0.JPEG']
    path = tmp_path / 'list.txt'
    path.write_text('\n'.join(names))
    dataset = dict(
        type='PartialLabels',
        label_list=str(path),
        dataset=dict(
            type='ImageNet',
            data_root=str(imagenet_folder.parent),
            split='train',
            classes=['tench', 'goldfish', 'shark', 'ray'],
            pipeline=TWO_VIEWS,
        ),
    )
    found = labels(load(dataset, num_workers))
    right = truth(imagenet_folder)
    assert len(found) == 22
    for path, label in found.items():
        listed = path.rpartition('/')[2] in names
        assert label == (right[path] if listed else None)


def labeled_and_unlabeled(imagenet_folder, unlabeled_folder, **kwargs):
    return dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='CustomDataset',
                data_prefix=str(imagenet_folder),
                pipeline=TWO_VIEWS,
            ),
            dict(
                type='CustomDataset',
                data_prefix=str(unlabeled_folder),
                with_label=False,
                pipeline=TWO_VIEWS,
            ),
        ],
        **kwargs,
    )


@pytest.mark.parametrize('num_workers', [0, 2])
def test_labeled_and_unlabeled_folder(
    imagenet_folder, unlabeled_folder, num_workers
):
    dataset = labeled_and_unlabeled(
        imagenet_folder, unlabeled_folder, ignore_keys=['classes']
    )
    found = labels(load(dataset, num_workers))
    right = truth(imagenet_folder)
    assert len(found) == 32
    for path, label in found.items():
        assert label == right.get(path)
        assert (label is None) == path.startswith(str(unlabeled_folder))


def test_folders_with_and_without_classes(imagenet_folder, unlabeled_folder):
    """Why `ignore_keys`: mmengine compares what the datasets tell of classes.

    Naming the classes in both does as well.
    """
    dataset = labeled_and_unlabeled(imagenet_folder, unlabeled_folder)
    with pytest.raises(ValueError, match='classes does not in the meta'):
        load(dataset, 0)
    classes = sorted(path.name for path in imagenet_folder.iterdir())
    for part in dataset['datasets']:
        part['metainfo'] = dict(classes=tuple(classes))
    assert len(load(dataset, 0)) == 32


def test_partly_labeled_and_unlabeled_folder(
    imagenet_folder, unlabeled_folder
):
    """Above the concatenation or inside it, the choice is the same."""
    whole = labeled_and_unlabeled(
        imagenet_folder, unlabeled_folder, ignore_keys=['classes']
    )
    outside = dict(type='PartialLabels', dataset=whole, label_ratio=0.5)
    inside = labeled_and_unlabeled(
        imagenet_folder, unlabeled_folder, ignore_keys=['classes']
    )
    inside['datasets'][0] = dict(
        type='PartialLabels', dataset=inside['datasets'][0], label_ratio=0.5
    )
    found = labels(load(outside, 0))
    assert found == labels(load(inside, 0))
    assert sum(label is not None for label in found.values()) == 11


def test_broken_image_is_replaced(imagenet_folder, tmp_path):
    """A file that does not load: another one is taken, labels stay right."""
    link = tmp_path / 'data'
    for path in imagenet_folder.rglob('*.*'):
        target = link / path.relative_to(imagenet_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    broken = link / 'n01440764' / 'broken.png'
    broken.touch()
    dataset = dict(
        type='PartialLabels',
        label_ratio=0.5,
        dataset=dict(
            type='CustomDataset',
            data_prefix=str(link),
            pipeline=[
                dict(type='LoadImageFromFile', ignore_empty=True),
                *TWO_VIEWS[1:],
            ],
        ),
    )
    samples = load(dataset, 0)
    assert str(broken) not in samples and len(samples) == 22
    right = truth(link)
    found = labels(samples)
    assert all(c in (None, right[path]) for path, c in found.items())
    assert 10 <= sum(c is not None for c in found.values()) <= 12


def test_spawned_workers(imagenet_folder):
    """Workers that unpickle the dataset have the labels taken away, too."""
    dataset = dict(
        type='PartialLabels',
        label_ratio=0.0,
        dataset=dict(
            type='CustomDataset',
            data_prefix=str(imagenet_folder),
            pipeline=TWO_VIEWS,
        ),
    )
    found = labels(
        load(
            dataset,
            1,
            multiprocessing_context='spawn',
            persistent_workers=True,
        )
    )
    assert set(found.values()) == {None} and len(found) == 22
