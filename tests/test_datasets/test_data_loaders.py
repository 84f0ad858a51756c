"""Image files to batches with PartialLabels, as a Runner loads them."""

import pytest
import torch
from mmengine.runner import Runner

TWO_VIEWS = [
    dict(type='CheckedLoadImageFromFile'),
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


def load_labels(dataset, num_workers, **kwargs):
    """Load an epoch; return {path: class id or None}."""
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
    labels = {}
    for batch in loader:
        samples = batch['data_samples']
        assert len(batch['inputs']) == 2
        for view in batch['inputs']:
            assert view.dtype == torch.uint8
            assert view.shape == (len(samples), 3, 16, 16)
        for sample in samples:
            label = sample.gt_label.item() if 'gt_label' in sample else None
            labels[sample.img_path] = label
    return labels


def true_labels(folder):
    return {
        str(path): label
        for label, sub in enumerate(sorted(folder.iterdir()))
        for path in sub.iterdir()
    }


def images(folder, **kwargs):
    return dict(
        type='CustomDataset',
        data_prefix=str(folder),
        pipeline=TWO_VIEWS,
        **kwargs,
    )


def partial(dataset, **kwargs):
    return dict(type='PartialLabels', dataset=dataset, **kwargs)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_ratio(imagenet_folder, num_workers):
    dataset = partial(images(imagenet_folder), label_ratio=0.5)
    found = load_labels(dataset, num_workers)
    expected = true_labels(imagenet_folder)
    assert found.keys() == expected.keys()
    kept = {path: c for path, c in found.items() if c is not None}
    assert len(kept) == 11  # of 22, in classes of 10, 7, 4 and 1
    assert all(expected[path] == c for path, c in kept.items())
    counts = [list(kept.values()).count(c) for c in range(4)]
    assert counts[0] == 5 and counts[1] in (3, 4) and counts[2] == 2


def test_list(imagenet_folder, tmp_path):
    names = ['n01440764_3.png', 'n01443537_0.JPEG', 'n01491361_0.JPEG']
    path = tmp_path / 'list.txt'
    path.write_text('\n'.join(names))
    dataset = partial(
        dict(
            type='ImageNet',
            data_root=str(imagenet_folder.parent),
            split='train',
            classes=['tench', 'goldfish', 'shark', 'ray'],
            pipeline=TWO_VIEWS,
        ),
        label_list=str(path),
    )
    found = load_labels(dataset, 0)
    expected = true_labels(imagenet_folder)
    assert len(found) == 22
    for path, label in found.items():
        listed = path.rpartition('/')[2] in names
        assert label == (expected[path] if listed else None)


def test_spawned_workers(imagenet_folder):
    """Workers that unpickle the dataset do not see hidden labels either."""
    dataset = partial(images(imagenet_folder), label_ratio=0.0)
    options = dict(multiprocessing_context='spawn', persistent_workers=True)
    found = load_labels(dataset, 1, **options)
    assert set(found.values()) == {None} and len(found) == 22


@pytest.fixture
def both_folders(imagenet_folder, unlabeled_folder):
    """A function that concatenates a labeled and an unlabeled folder."""

    def concatenate(wrap=lambda dataset: dataset, **kwargs):
        labeled = wrap(images(imagenet_folder))
        unlabeled = images(unlabeled_folder, with_label=False)
        return dict(
            type='ConcatDataset', datasets=[labeled, unlabeled], **kwargs
        )

    return concatenate


def test_labeled_and_unlabeled_folder(imagenet_folder, both_folders):
    found = load_labels(both_folders(ignore_keys=['classes']), 0)
    expected = true_labels(imagenet_folder)
    assert len(found) == 32
    assert all(label == expected.get(path) for path, label in found.items())


def test_unequal_classes_need_ignore_keys(imagenet_folder, both_folders):
    """ConcatDataset compares class names; naming them in both works, too."""
    dataset = both_folders()
    with pytest.raises(ValueError, match='classes does not in the meta'):
        load_labels(dataset, 0)
    classes = sorted(path.name for path in imagenet_folder.iterdir())
    for part in dataset['datasets']:
        part['metainfo'] = dict(classes=tuple(classes))
    assert len(load_labels(dataset, 0)) == 32


def test_partly_labeled_and_unlabeled_folder(both_folders):
    """Around the concatenation or inside it, the selection is the same."""
    whole = both_folders(ignore_keys=['classes'])
    outside = partial(whole, label_ratio=0.5)
    inside = both_folders(
        lambda dataset: partial(dataset, label_ratio=0.5),
        ignore_keys=['classes'],
    )
    found = load_labels(outside, 0)
    assert found == load_labels(inside, 0)
    assert sum(label is not None for label in found.values()) == 11
