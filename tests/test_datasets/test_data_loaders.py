"""Image files to batches with PartialLabels, as a Runner loads them."""

import pickle

import torch
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS

import mmunimoco  # noqa: F401  registers the datasets

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


def load_labels(dataset, num_workers):
    """Load an epoch; return {path: class id or None}."""
    loader = Runner.build_dataloader(
        dict(
            dataset=dataset,
            batch_size=4,
            num_workers=num_workers,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
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


def test_ratio(imagenet_folder):
    dataset = partial(images(imagenet_folder), label_ratio=0.5)
    found = load_labels(dataset, 2)
    expected = true_labels(imagenet_folder)
    assert found.keys() == expected.keys()
    kept = {path: c for path, c in found.items() if c is not None}
    assert len(kept) == 11  # of 22, in classes of 10, 7, 4 and 1
    assert all(expected[path] == c for path, c in kept.items())
    counts = [list(kept.values()).count(c) for c in range(4)]
    assert counts[0] == 5 and counts[1] in (3, 4) and counts[2] == 2


def test_pickled_dataset(imagenet_folder):
    """Workers that are spawned do not see hidden labels either."""
    dataset = DATASETS.build(partial(images(imagenet_folder), label_ratio=0.0))
    found = load_labels(pickle.loads(pickle.dumps(dataset)), 0)
    assert set(found.values()) == {None} and len(found) == 22


def test_labeled_and_unlabeled_folder(imagenet_folder, unlabeled_folder):
    """Around a concatenation or inside it, the selection is the same."""
    labeled = images(imagenet_folder)
    unlabeled = images(unlabeled_folder, with_label=False)
    concat = dict(type='ConcatDataset', ignore_keys=['classes'])
    whole = dict(concat, datasets=[labeled, unlabeled])
    found = load_labels(partial(whole, label_ratio=0.5), 0)
    parts = [partial(labeled, label_ratio=0.5), unlabeled]
    assert found == load_labels(dict(concat, datasets=parts), 0)
    assert len(found) == 32
    assert sum(label is not None for label in found.values()) == 11
