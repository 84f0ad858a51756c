"""Killed runs are resumed, and compared bit by bit with undisturbed ones."""

import json
import re
from pathlib import Path

import mmpretrain
import pytest
import torch
from exact_runs import (
    FULL_DISK,
    KILL,
    ROOT,
    TERM,
    TRAIN,
    newest_log,
    run,
    run_processes,
    write_config,
)
from mmengine.config import Config

from benchmarks.checkpoint_differences import differences
from mmunimoco.engine.preemption import REQUEUE
from mmunimoco.utils.safe_load import read_checkpoint

MMPRETRAIN_TRAIN = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'
BY_STEPS = 'by_epoch=False, interval=2'
LAST = 'iter_14.pth'  # 140 images an epoch, of which 50 are 10 labeled ones


def assert_same(work_dir, other, name=LAST):
    first, second = (read_checkpoint(str(x / name)) for x in (work_dir, other))
    assert list(differences(first, second)) == []


def last_checkpoint(work_dir):
    return Path((work_dir / 'last_checkpoint').read_text()).name


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """Work folder of an undisturbed run without workers."""
    folder = tmp_path_factory.mktemp('undisturbed')
    config = write_config(folder, 0, BY_STEPS)
    assert run(TRAIN, config, '--work-dir', folder / 'work') == 0
    return folder / 'work'


def test_run_that_is_killed_again_and_again(tmp_path, undisturbed):
    """Each time with another number of workers; at last the disk is full."""
    work_dir = tmp_path / 'work'

    def train(workers, kill, tool=TRAIN, *options):
        config = write_config(tmp_path, workers, BY_STEPS)
        command = tool, config, '--work-dir', work_dir, *options
        return run(*command, kill=kill)

    # Between writing a checkpoint and giving it its name.
    assert train(1, ('rename', 4, KILL), MMPRETRAIN_TRAIN) == -KILL
    assert last_checkpoint(work_dir) == 'iter_4.pth'
    assert list(work_dir.glob('.iter_6.pth.*.part'))
    # After the last step of an epoch, before its result is known. The seed
    # comes from the checkpoint.
    resume = '--resume', '--cfg-options', 'randomness.seed=None'
    assert train(4, ('validation', 0, KILL), TRAIN, *resume) == -KILL
    assert last_checkpoint(work_dir) == 'iter_6.pth'
    # In the second epoch, one step after a checkpoint.
    assert train(0, ('step', 3, KILL), MMPRETRAIN_TRAIN, *resume) == -KILL
    assert last_checkpoint(work_dir) == 'iter_8.pth'
    # The disk is full for one checkpoint.
    assert train(2, ('rename', 0, FULL_DISK), TRAIN, *resume) == 0
    log = newest_log(work_dir)
    assert 'iter_10.pth could not be written: [Errno 28]' in log
    assert 'iter_8.pth' in log.split('could not be written')[1]
    assert_same(undisturbed, work_dir)
    assert not list(work_dir.glob('.*.part'))


LOST = """
custom_imports = dict(imports=['mmunimoco', 'run_faults'])
custom_hooks = [
    *_base_.custom_hooks, dict(type='FolderLost', folder={!r}, step=3)]
"""


def test_run_stops_when_too_many_saves_fail(tmp_path, undisturbed):
    folder, work_dir = tmp_path / 'out/work', tmp_path / 'work'
    checkpoint = f'{BY_STEPS}, out_dir={str(folder.parent)!r}'
    config = write_config(tmp_path, 0, checkpoint, LOST.format(str(folder)))
    command = [TRAIN, config, '--work-dir', work_dir]
    assert run(*command) == 1
    log = newest_log(work_dir)
    for step, more in ((4, 3), (6, 2), (7, 1)):  # 7 ends the epoch
        assert f'iter_{step}.pth could not be written: [Errno ' in log
        assert f'stops after {more} more failures' in log
    text = r'The best checkpoint best_\S+ could not be written: \[Errno '
    assert re.search(text, log)
    assert last_checkpoint(work_dir) == 'iter_2.pth'
    # Repaired by hand.
    folder.unlink()
    moved = folder.with_suffix('.moved')
    assert [path.name for path in moved.glob('*.pth')] == ['iter_2.pth']
    moved.rename(folder)
    moved.touch()
    assert run(*command, '--resume') == 0
    assert_same(undisturbed, folder)


# SIGTERM after step 10 falls between two log lines, of 7 and 11.
LATE_LOG = """
default_hooks = dict(
    runtime_info=dict(type='DelayedRuntimeInfoHook'), logger=dict(interval=4))
"""


def logged_losses(work_dir):
    losses = {}
    for path in work_dir.glob('*/vis_data/scalars.json'):
        for line in map(json.loads, path.read_text().splitlines()):
            if 'loss' in line:
                losses[line['step']] = line['loss']
    return losses


def test_preempted_run(tmp_path):
    """By checkpoints of epochs; also its log is that of the other run."""
    config = write_config(tmp_path, 1, 'interval=1', LATE_LOG)
    undisturbed, work_dir = tmp_path / 'undisturbed', tmp_path / 'work'
    assert run(TRAIN, config, '--work-dir', undisturbed) == 0
    command = [TRAIN, config, '--work-dir', work_dir]
    # SIGTERM ends a validation at once; it is repeated.
    assert run(*command, kill=('validation', 1, TERM)) == REQUEUE
    assert last_checkpoint(work_dir) == 'epoch_1.pth'
    # During a step it saves a checkpoint after that step. A launcher that
    # restarts the run does not need --resume.
    restart = dict(env=dict(TORCHELASTIC_RESTART_COUNT='1'))
    assert run(*command, kill=('step', 2, TERM), **restart) == REQUEUE
    assert last_checkpoint(work_dir) == 'iter_10.pth'
    assert run(*command, **restart) == 0
    assert_same(undisturbed, work_dir, 'epoch_2.pth')
    losses = logged_losses(undisturbed)
    assert 10 not in losses and 11 in losses
    assert logged_losses(work_dir) == losses
    # Nothing needs it any more.
    assert not (work_dir / 'iter_10.pth').exists()


def test_two_killed_processes(tmp_path):
    config = write_config(tmp_path, 1, 'by_epoch=False, interval=1')

    def train(name, *options, kill=None):
        command = TRAIN, config, '--work-dir', tmp_path / name, *options
        return run_processes(2, *command, kill=kill)

    assert train('undisturbed') == [0, 0]
    # One may fail for want of the other before it is killed itself.
    codes = train('killed', kill=('step', 5, KILL))
    assert -KILL in codes and 0 not in codes
    assert train('killed', '--resume') == [0, 0]
    assert_same(tmp_path / 'undisturbed', tmp_path / 'killed', 'iter_6.pth')
    # Each process has, and keeps, its own BN statistics.
    state = read_checkpoint(str(tmp_path / 'killed/iter_6.pth'))
    first, second = state['exact_resume']['ranks']
    assert not first['buffers']
    assert any(name.endswith('running_mean') for name in second['buffers'])


@pytest.mark.slow  # test_batch_samplers.py resumes the loop too
def test_killed_run_of_iterations(tmp_path):
    """In the second pass over the data, one step after a checkpoint."""
    config = by_iterations(tmp_path, max_iters=12)
    command = TRAIN, config, '--work-dir'
    assert run(*command, tmp_path / 'undisturbed') == 0
    work_dir = tmp_path / 'killed'
    assert run(*command, work_dir, kill=('step', 9, KILL)) == -KILL
    assert last_checkpoint(work_dir) == 'iter_8.pth'
    assert run(*command, work_dir, '--resume') == 0
    assert_same(tmp_path / 'undisturbed', work_dir, 'iter_12.pth')


def by_iterations(folder, max_iters):
    """The shipped parts for iterations, with the small data."""
    config = Config.fromfile(write_config(folder, 1, ''))
    base = ROOT / 'configs/_base_'
    schedule = base / 'schedules/imagenet_sgd_coslr_1000k.py'
    for path in (schedule, base / 'iter_runtime.py'):
        for key, value in Config.fromfile(path).to_dict().items():
            config[key] = value
    config.merge_from_dict(
        {
            'train_cfg.max_iters': max_iters,
            'train_cfg.val_interval': 5,
            'param_scheduler.0.T_max': max_iters,
            'param_scheduler.0.end': max_iters,
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.logger.interval': 2,
            'randomness': dict(seed=0, deterministic=True),
        }
    )
    path = folder / 'by_iterations.py'
    config.dump(path)
    return path


# Resumed under other circumstances. One epoch of 3 x 40 of 140 images, in one
# process or two. The queue holds the epoch, and the index of each key's image.
ONE_EPOCH = """
train_cfg = dict(max_epochs=1)
default_hooks = dict(checkpoint=dict(save_best=None))
model = dict(head=dict(exclude_own_keys=True, queue_len=120))
"""
TWO, ONE = 20, 40  # images per process


def one_epoch(config, work_dir, batch_size, *more):
    size = f'train_dataloader.batch_size={batch_size}'
    settings = '--no-validate', '--cfg-options', size, *more
    return TRAIN, config, '--work-dir', work_dir, *settings


@pytest.fixture(scope='module')
def epoch(tmp_path_factory):
    """A config, and the images of each step of one process."""
    folder = tmp_path_factory.mktemp('epoch')
    config = write_config(folder, 1, BY_STEPS, ONE_EPOCH)
    assert run(*one_epoch(config, folder / 'work', ONE)) == 0
    state = read_checkpoint(str(folder / 'work/iter_3.pth'))['state_dict']
    images = state['head.index_queue'].view(3, 40).sort(dim=1).values
    assert (images >= 0).all()
    return config, images


def test_two_processes_then_one_with_a_shorter_queue(tmp_path, epoch):
    config, images = epoch
    killed = one_epoch(config, tmp_path, TWO)
    codes = run_processes(2, *killed, kill=('step', 2, KILL))
    assert -KILL in codes and 0 not in codes
    resumed = one_epoch(config, tmp_path, ONE, 'model.head.queue_len=60')
    assert run(*resumed, '--resume') == 0
    log = newest_log(tmp_path)
    assert 'its newest 60 of 120 keys are kept' in log
    assert 'written by 2 processes, now there are 1' in log
    assert 'resumes after 2 batches of epoch 1; 0 images are seen twice' in log
    checkpoint = read_checkpoint(str(tmp_path / 'iter_3.pth'))
    queue = checkpoint['state_dict']['head.index_queue']
    # The last step replaced the oldest keys, by the rest of the epoch.
    assert torch.equal(queue[:40].sort().values, images[2])
    assert torch.isin(queue[40:], images[1]).all()
    assert len(checkpoint['exact_resume']['ranks']) == 1


def test_one_process_then_two_with_a_longer_queue(tmp_path, epoch):
    config, images = epoch
    killed = one_epoch(config, tmp_path, ONE)
    assert run(*killed, kill=('step', 2, KILL)) == -KILL
    resumed = one_epoch(config, tmp_path, TWO, 'model.head.queue_len=200')
    assert run_processes(2, *resumed, '--resume') == [0, 0]
    log = newest_log(tmp_path)
    assert (
        'its 120 keys are kept, random unlabeled ones fill them up to' in log
    )
    assert 'written by 1 processes, now there are 2' in log
    checkpoint = read_checkpoint(str(tmp_path / 'iter_3.pth'))
    state = checkpoint['state_dict']
    seen = state['head.index_queue']
    assert torch.equal(seen[:40].sort().values, images[2])
    assert torch.equal(
        seen[-80:].sort().values, images[:2].flatten().sort()[0]
    )
    assert (seen[40:-80] == -1).all()
    assert (state['head.label_queue'][40:-80] == -1).all()
    assert len(checkpoint['exact_resume']['ranks']) == 2


MOCO = """
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
default_hooks = dict(
    checkpoint=dict(_delete_=True, type='CheckpointHook', interval=1))
custom_hooks = []
model = dict(
    type='MoCo', queue_len=60, feat_dim=64, momentum=0.01,
    head=dict(
        _delete_=True, type='ContrastiveHead', temperature=0.2,
        loss=dict(type='CrossEntropyLoss')))
"""


def test_moco_of_mmpretrain_continues_as_unimoco(tmp_path):
    """Written by mmpretrain's tool, loop, hook and model."""
    moco = write_config(tmp_path, 0, 'interval=1', MOCO, 'moco')
    work_dir = tmp_path / 'work'
    command = MMPRETRAIN_TRAIN, moco, '--work-dir', work_dir, '--no-validate'
    assert run(*command) == 0
    before = read_checkpoint(str(work_dir / 'epoch_1.pth'))
    assert before['state_dict']['queue'].shape == (64, 60)

    no_best = 'default_hooks = dict(checkpoint=dict(save_best=None))'
    ours = write_config(tmp_path, 0, 'interval=1', no_best, 'ours')
    command = TRAIN, ours, '--work-dir', work_dir, '--no-validate'
    length = '--cfg-options', 'train_cfg.max_epochs=1', '--extend-to', 2
    resume = '--resume', work_dir / 'epoch_1.pth'
    assert run(*command, *resume, *length) == 0
    log = newest_log(work_dir)
    assert "of mmpretrain's MoCo: it continues as UniMoCo" in log
    assert 'its 60 keys are kept, random unlabeled ones fill them up to' in log
    assert 'resumed epoch: 1, iter: 7' in log
    after = read_checkpoint(str(work_dir / 'epoch_2.pth'))
    assert after['meta']['epoch'] == 2 and after['meta']['iter'] == 14
    assert (after['state_dict']['head.label_queue'] >= 0).any()
    # The optimizer continued too, parameter by parameter.
    old, new = (x['optimizer']['state'] for x in (before, after))
    assert old.keys() == new.keys()
    assert {int(x['step']) for x in old.values()} == {7}
    assert {int(x['step']) for x in new.values()} == {14}
