"""Training data on the device: which is taken, and that runs stay the same."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ddp_helpers import run_ddp
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.datasets import PackInputs
from mmpretrain.registry import MODELS
from noise_runs import noise_runner
from small_unimoco import unimoco_config
from toy_dataset import Toy

from benchmarks.checkpoint_differences import differences
from mmunimoco.datasets import IndexAsImage, PartialLabels
from mmunimoco.engine import images_on_device
from mmunimoco.engine.images_on_device import (
    IndexBatches,
    put_images_on_device,
    stack_images,
)
from mmunimoco.models.labels import CollectedSamples


def draw_images(n=5, shape=(8, 9, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), np.uint8)


def dataset_of(images):
    infos = [
        dict(img=image, gt_label=i % 2, img_path=f'{i}.png')
        for i, image in enumerate(images)
    ]
    pipeline = [dict(type='IndexAsImage'), dict(type='PackInputs')]
    return Toy(infos, pipeline=pipeline)


def put_on_device(preprocessor, dataset):
    runner = SimpleNamespace(
        model=SimpleNamespace(data_preprocessor=preprocessor),
        train_dataloader=SimpleNamespace(dataset=dataset),
        logger=logging.getLogger('test'),
    )
    put_images_on_device(runner)


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
    put_on_device(preprocessor, dataset)
    for i in range(len(dataset)):
        index = dataset[i]['inputs']
        assert index.dtype == torch.int64 and index.dim() == 0
        kept = preprocessor.images[index].permute(1, 2, 0).numpy()
        assert np.array_equal(kept, images[i % len(images)])


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ([None], 'image 0 is not in memory'),
        ([*draw_images(2), *draw_images(1, (9, 9, 3))], 'of one size'),
        (draw_images(2, (8, 9)), 'of one size'),
        (draw_images(2).astype(np.float32), 'uint8'),
    ],
)
def test_images_that_cannot_be_stacked(images, message):
    with pytest.raises(ValueError, match=message):
        stack_images(dataset_of(images))


def test_concatenated_datasets_and_other_preprocessors_are_refused():
    parts = [dataset_of(draw_images(seed=seed)) for seed in (0, 1)]
    with pytest.raises(ValueError, match='two images have the sample_idx 0'):
        stack_images(ConcatDataset(parts))
    preprocessor = MODELS.build(dict(type='SelfSupDataPreprocessor'))
    with pytest.raises(ValueError, match='it is SelfSupDataPreprocessor'):
        put_on_device(preprocessor, parts[0])


# Batches without work per image


class CountedPack(PackInputs):
    """Not the type that is known, so its samples are collated one by one."""

    calls = 0

    def transform(self, results):
        CountedPack.calls += 1
        return super().transform(results)


def image_runner(folder, known, loop='ExactEpochLoop', head=None, **changes):
    """Three epochs of 4 steps, 17 images, half of them labeled."""
    images = draw_images(17, (20, 20, 3))
    several = (head or {}).get('multi_label')
    infos = [
        dict(img=x, gt_label=[i % 3, 2] if several else i % 3, sample_idx=i)
        for i, x in enumerate(images)
    ]
    dataset = PartialLabels(Toy(infos, pipeline=[]), label_ratio=0.5)
    steps = [IndexAsImage(), (PackInputs if known else CountedPack)()]
    dataset.dataset.pipeline.transforms = steps
    crop = dict(scale=16)
    settings = dict(
        model=unimoco_config(
            head=dict(num_classes=3) | (head or {}),
            data_preprocessor=dict(type='TwoViewAugment', crop=crop),
        ),
        train_dataloader=dict(
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_size=4,
            num_workers=0,
            drop_last=True,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(
            type=loop,
            **(dict(max_epochs=3) if 'Epoch' in loop else dict(max_iters=9)),
        ),
        default_hooks=dict(
            checkpoint=dict(
                type='ExactCheckpointHook', by_epoch=False, interval=3
            ),
            logger=dict(type='LoggerHook', interval=1),
        ),
        hooks=[dict(type='StepOptionsHook', images_on_device=True)],
    )
    return noise_runner(folder, **(settings | changes))


def last(folder):
    name = (folder / 'last_checkpoint').read_text()
    return torch.load(name, weights_only=False)


@pytest.mark.parametrize(
    ('loop', 'head'),
    [
        ('ExactEpochLoop', dict(exclude_own_keys=True)),
        ('EpochBasedTrainLoop', dict(multi_label=True)),
        ('ExactIterLoop', dict(loss=dict(type='InfoNCELoss'))),
        ('IterBasedTrainLoop', dict(ignore_unlabeled_keys=True)),
    ],
)
def test_a_run_is_the_same_to_the_bit(tmp_path, loop, head):
    """Weights, queues, random states, schedules and log values."""
    for known in (True, False):
        CountedPack.calls = 0
        runner = image_runner(tmp_path / str(known), known, loop, head)
        runner.train()
        assert isinstance(runner.train_dataloader.dataset, IndexBatches) == (
            known
        )
        assert bool(CountedPack.calls) != known
    found, expected = (last(tmp_path / str(known)) for known in (True, False))
    assert expected['state_dict']['head.label_queue'].max() > 0
    assert list(differences(expected, found)) == []


def test_resumes_exactly_within_an_epoch(tmp_path):
    image_runner(tmp_path / 'all', True).train()
    start = str(tmp_path / 'all/iter_6.pth')
    runner = image_runner(
        tmp_path / 'rest', True, load_from=start, resume=True
    )
    torch.manual_seed(5)
    runner.train()
    found, expected = last(tmp_path / 'rest'), last(tmp_path / 'all')
    assert list(differences(expected, found)) == []


def train_on_rank(rank, world_size, folder):
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    for known in (True, False):
        image_runner(
            folder / str(known),
            known,
            launcher='pytorch',
            cfg=dict(model_wrapper_cfg=wrapper),
        ).train()
    parts = [last(folder / str(known)) for known in (True, False)]
    return list(differences(*parts)), parts[0]['state_dict'][
        'head.label_queue'
    ]


def test_two_processes_train_the_same(tmp_path):
    for found, labels in run_ddp(train_on_rank, 2, tmp_path, tmp_path):
        assert found == []
        # 3 epochs of 2 steps of 2 x 4 images, more than the queue of 32 has.
        assert (labels >= 0).any() and (labels == -1).any()


@pytest.mark.parametrize('chunk', [4, 100])
def test_a_batch_needs_nothing_of_single_samples(monkeypatch, chunk):
    """Labels are tensors; a data sample is made when it is asked for."""
    monkeypatch.setattr(images_on_device, '_CHUNK', chunk)
    images = draw_images(6)
    infos = [dict(img=x, gt_label=i % 3) for i, x in enumerate(images)]
    pipeline = [dict(type='IndexAsImage'), dict(type='PackInputs')]
    dataset = PartialLabels(Toy(infos, pipeline=pipeline), label_ratio=0.5)
    head = MODELS.build(unimoco_config(head=dict(exclude_own_keys=True))).head
    batches = IndexBatches(dataset, head)
    loaded = []
    dataset.dataset.pipeline.transforms.append(loaded.append)
    batch = batches.__getitems__([4, 1, 3])
    samples = batch['data_samples']
    assert isinstance(samples, CollectedSamples) and len(samples) == 3
    assert batch['inputs'].tolist() == [4, 1, 3]
    collected = head.collect(samples)
    assert loaded == []
    dataset.dataset.pipeline.transforms.pop()
    expected = head.collect(list(samples))
    assert collected.labels.tolist() == expected.labels.tolist()
    assert collected.indices.tolist() == expected.indices.tolist()
    for rows in ([0, 1, 2, 3, 4, 5], [0], [5]):
        found = batches.__getitems__(rows)['data_samples']
        wanted = head.collect(list(found))
        assert found.collected.has_labels == wanted.has_labels
        assert found.collected.has_unlabeled == wanted.has_unlabeled
    assert [x.sample_idx for x in samples[1:]] == [1, 3]


def test_labels_are_checked_before_the_first_step(tmp_path):
    runner = image_runner(tmp_path, True, head=dict(num_classes=2))
    with pytest.raises(ValueError, match=r'labels are in \[-1, 2\]'):
        runner.train()
    assert runner.iter == 0
