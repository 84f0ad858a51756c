"""Broken images are counted over processes and restarts, and listed."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from ddp_helpers import run_ddp
from image_folders import write_image_folder
from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from small_unimoco import unimoco_config

from benchmarks.checkpoint_differences import differences
from mmunimoco.datasets.skip_broken import BrokenImageError
from mmunimoco.engine import BrokenImagesHook
from mmunimoco.utils.safe_load import read_checkpoint

LOAD, PACK = dict(type='LoadTwoCrops', scale=32), dict(type='PackInputs')
WHOLE = [dict(type='CheckedLoadImageFromFile'), PACK]
BROKEN = ('class_0/1.png', 'class_1/0.png', 'class_2/3.png')


@pytest.fixture
def folder(tmp_path):
    root = write_image_folder(tmp_path / 'images', per_class=4)
    for name in BROKEN:
        (root / name).write_bytes(b'no image')
    return root


def images(folder, pipeline):
    return dict(
        type='CustomDataset', data_prefix=str(folder), pipeline=pipeline
    )


def loader(dataset, workers=0):
    return dict(
        batch_size=3,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )


def config(folder, work_dir, max_broken, **changes):
    dataset = dict(
        type='SkipBrokenImages',
        max_broken=max_broken,
        dataset=images(folder, [LOAD, PACK]),
    )
    cfg = dict(
        default_scope='mmpretrain',
        model=unimoco_config(),
        data_preprocessor=dict(type='TwoViewAugment'),
        train_dataloader=loader(dataset),
        train_cfg=dict(type='ExactEpochLoop', max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='ExactCheckpointHook')),
        custom_hooks=[dict(type='BrokenImagesHook')],
        work_dir=str(work_dir),
        experiment_name=Path(work_dir).name,
        randomness=dict(seed=0),
        log_level='WARNING',
    )
    return Config(cfg | changes)


@pytest.mark.parametrize(('workers', 'by_epoch'), [(0, True), (2, False)])
def test_listed_after_each_epoch(folder, tmp_path, log_of, workers, by_epoch):
    cfg = config(folder, tmp_path / 'run', 3)
    cfg.train_dataloader.num_workers = workers
    if not by_epoch:
        cfg.train_cfg = dict(type='ExactIterLoop', max_iters=8)
        cfg.default_hooks.checkpoint.by_epoch = False
    else:
        cfg.train_cfg.max_epochs = 2
    runner = Runner.from_cfg(cfg)
    runner.train()
    text = log_of(tmp_path / 'run')
    assert text.count('3 broken files, of at most 3') >= 2
    for name in BROKEN:
        assert text.count(f'{folder / name} is not an image') >= 2
    assert len(runner.message_hub.get_info('broken_files')) == 3


def test_counted_over_workers_before_the_step(folder, tmp_path):
    """No worker meets three; the run stops before the batch of the third."""
    cfg = config(folder, tmp_path / 'run', 2)
    cfg.train_dataloader.num_workers = 3
    runner = Runner.from_cfg(cfg)
    with pytest.raises(BrokenImageError) as caught:
        runner.train()
    for name in BROKEN:
        assert str(folder / name) in str(caught.value)
    other = config(folder, tmp_path / 'other', 2)
    alone = Runner.from_cfg(other)
    with pytest.raises(BrokenImageError):
        alone.train()
    assert runner.iter == alone.iter


def test_counted_over_restarts(folder, tmp_path):
    cfg = config(folder, tmp_path / 'run', 3)
    Runner.from_cfg(cfg).train()
    for name in BROKEN:
        whole = folder / name
        whole.write_bytes((folder / 'class_0/0.png').read_bytes())
    (folder / 'class_0/0.png').write_bytes(b'')
    cfg = config(folder, tmp_path / 'run', 3, resume=True)
    cfg.train_cfg.max_epochs = 2
    with pytest.raises(BrokenImageError, match='4 files are broken') as caught:
        Runner.from_cfg(cfg).train()
    assert 'class_0/0.png' in str(caught.value)


def test_resumed_as_if_never_stopped(folder, tmp_path):
    last = []
    for name, parts in (('whole', [2]), ('parts', [1, 2])):
        for epochs in parts:
            cfg = config(folder, tmp_path / name, 3, resume=True)
            cfg.randomness.deterministic = True
            cfg.train_cfg.max_epochs = epochs
            Runner.from_cfg(cfg).train()
        last.append(read_checkpoint(str(tmp_path / name / 'epoch_2.pth')))
    assert not list(differences(*last))
    hub = last[0]['message_hub']['runtime_info']
    assert len(hub['broken_files']) == 3


def test_nothing_is_counted_if_nothing_is_skipped(tmp_path, log_of):
    folder = write_image_folder(tmp_path / 'images', per_class=4)
    runner = Runner.from_cfg(config(folder, tmp_path / 'run', 0))
    runner.train()
    assert 'broken_files' not in runner.message_hub.runtime_info
    assert 'broken' not in log_of(tmp_path / 'run')


def test_knn_bank_ignores_them(folder, tmp_path, log_of):
    """The bank has the training images; the queries must not be broken."""
    val = write_image_folder(tmp_path / 'val', per_class=2, seed=1)
    bank = loader(images(folder, WHOLE))
    bank['sampler']['shuffle'] = False
    cfg = config(
        folder,
        tmp_path / 'run',
        3,
        val_dataloader=loader(images(val, WHOLE)),
        val_cfg=dict(type='KNNValLoop', k=9, bank_dataloader=bank),
        val_evaluator=dict(type='Accuracy', prefix='knn'),
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert '3 broken files are ignored' in log_of(tmp_path / 'run')
    features, labels = runner.val_loop._extract_bank()
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(features.unique(dim=0)) == 9
    (val / 'class_0/0.png').write_bytes(b'no image')
    with pytest.raises(Exception, match=r'val/class_0/0\.png'):
        runner.val_loop.run()


def _train(folder, work_dir, max_broken):
    """What this process found by itself, and what it knows or raised."""
    runner = Runner.from_cfg(config(folder, work_dir, max_broken))
    own = []
    hook = next(h for h in runner.hooks if isinstance(h, BrokenImagesHook))
    gather = hook.after_train_epoch

    def after_train_epoch(runner):
        own.extend(hook.found)
        gather(runner)

    hook.after_train_epoch = after_train_epoch
    try:
        runner.train()
    except BrokenImageError as error:
        return own, str(error)
    return own, dict(hook.found)


def _in_two_processes(rank, world_size, folder, work_dir):
    logging.disable(logging.INFO)
    own, found = _train(folder, work_dir / 'run', 3)
    few = max(all_gather_object(len(own)))
    _, message = _train(folder, work_dir / 'few', few)
    hook = BrokenImagesHook()
    hook.limit, hook.found = 3, {f'{rank}.png': 'bad'}
    hub = MessageHub.get_instance('broken')
    hook.before_collecting_state(SimpleNamespace(message_hub=hub))
    return set(own), found, few, message, hub.get_info('broken_files')


def test_two_processes(folder, tmp_path):
    """Each knows its own until the epoch ends or a checkpoint is saved."""
    paths = {str(folder / name) for name in BROKEN}
    results = run_ddp(_in_two_processes, 2, tmp_path, folder, tmp_path)
    owns = [result[0] for result in results]
    assert owns[0] | owns[1] == paths and not owns[0] & owns[1]
    for _, found, few, message, saved in results:
        assert found.keys() == paths
        assert few < 3 and all(path in message for path in paths)
        assert saved == {'0.png': 'bad', '1.png': 'bad'}
