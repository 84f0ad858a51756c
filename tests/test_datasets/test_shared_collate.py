"""collate_views equals default_collate and reuses its memory."""

import gc

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mmunimoco.datasets import shared_collate
from mmunimoco.datasets.shared_collate import collate_views


class Views(Dataset):
    """Samples in the form of PackInputs, determined by their index."""

    def __init__(self, count, dtype=torch.uint8, form=list):
        self.count, self.dtype, self.form = count, dtype, form

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        views = torch.randint(256, (2, 3, 5, 7), generator=generator)
        if callable(self.dtype):  # changes between batches
            return self.sample(index, self.dtype(index, views))
        return self.sample(index, views.to(self.dtype))

    def sample(self, index, views):
        sample = DataSample(metainfo=dict(img_path=f'{index}.jpg'))
        if index % 3:
            sample.set_gt_label([index % 5, 7])
        return dict(inputs=self.form(views), data_samples=sample)


def load(dataset, collate, workers=1, batch_size=4, **options):
    return DataLoader(
        dataset, batch_size, num_workers=workers, collate_fn=collate, **options
    )


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        assert type(batch['inputs']) is type(other['inputs'])
        for view, expected in zip(
            batch['inputs'], other['inputs'], strict=True
        ):
            assert view.dtype == expected.dtype and view.is_contiguous()
            assert torch.equal(view, expected)
        for sample, expected in zip(
            batch['data_samples'], other['data_samples'], strict=True
        ):
            assert sample.metainfo == expected.metainfo
            assert sample.keys() == expected.keys()
            assert sample.get('gt_label') is None or torch.equal(
                sample.gt_label, expected.gt_label
            )


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_batches_are_those_of_default_collate(dtype):
    """Also if all batches are kept, and for a smaller last one."""
    dataset = Views(46, dtype)
    kept = list(load(dataset, FUNCTIONS.get('collate_views')))
    assert_same(kept, load(dataset, default_collate, workers=0))
    assert_same(load(dataset, collate_views, workers=0), kept)


def change(index, views):
    batch = index // 4
    views = views.to(torch.float32) if batch % 2 else views.to(torch.uint8)
    return views[..., : 7 - batch % 3]


def test_dtypes_and_sizes_may_change():
    dataset = Views(80, change)
    expected = load(dataset, default_collate, workers=0)
    # Batches are released, so each takes the place of an earlier one.
    for batch, other in zip(
        load(dataset, collate_views), expected, strict=True
    ):
        assert_same([batch], [other])
        del batch


def test_other_inputs_use_default_collate():
    for form in (torch.clone, tuple):
        dataset = Views(4, form=form)
        batches = list(load(dataset, collate_views))
        assert_same(batches, load(dataset, default_collate))


class Reporting(Views):
    """Labels are the number of blocks that the worker holds."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        pool = len(shared_collate._BLOCKS) if get_worker_info() else -1
        sample['data_samples'].set_gt_label(pool)
        return sample


def pool_of(batch):
    return max(int(sample.gt_label) for sample in batch['data_samples'])


def test_memory_is_reused():
    """Only that of released batches; a slice is enough to keep one."""
    loader = load(Reporting(200), collate_views, persistent_workers=True)
    first = next(iter(loader))
    expected = first['inputs'][1][2].clone()
    piece = first['inputs'][1][2]
    del first
    pools = []
    for _ in range(2):
        for batch in loader:
            pools.append(pool_of(batch))
            del batch
    gc.collect()
    # A few for the queue of the worker, the consumer and `piece`.
    assert len(pools) == 100 and max(pools) <= 10
    assert torch.equal(piece, expected)
    # Batches that are kept need memory of their own.
    held = list(loader)
    assert pool_of(held[-1]) > 40


def test_only_the_owner_releases_memory():
    memory = torch.ones(shared_collate._HEADER + 8, dtype=torch.uint8)
    shared_collate._release(memory, owner=-1)
    assert memory[0] == 1
    batch = shared_collate._receive(memory, (1, 1, 8), torch.uint8, {})
    (view,) = batch.pop('inputs')
    part = view[:, 2:]
    del view, batch
    assert memory[0] == 1
    del part
    assert memory[0] == 0
