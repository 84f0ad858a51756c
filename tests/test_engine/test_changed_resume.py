"""Real runs that go on under other circumstances than they were stopped in."""

from pathlib import Path

import mmpretrain
import pytest
import torch
from exact_runs import (
    KILL,
    ROOT,
    run,
    run_processes,
    write_config,
)
from mmengine.config import Config

from benchmarks.checkpoint_differences import differences
from mmunimoco.utils.safe_load import read_checkpoint

TRAIN = ROOT / 'tools/train.py'
BY_STEPS = 'by_epoch=False, interval=2'
# One epoch of 3 x 40 of 140 images, in one process or two. The queue holds
# the epoch, and knows which image each key is of.
ONE_EPOCH = """
train_cfg = dict(max_epochs=1)
default_hooks = dict(checkpoint=dict(save_best=None))
model = dict(head=dict(exclude_own_keys=True, queue_len=120))
"""
TWO, ONE = 20, 40  # images a process


def final(work_dir, name):
    return read_checkpoint(str(work_dir / name))


def log_of(work_dir):
    return max(work_dir.glob('*/*.log')).read_text()


@pytest.fixture(scope='module')
def epoch(tmp_path_factory):
    """A config, and the images of each step that one process makes of it."""
    folder = tmp_path_factory.mktemp('epoch')
    config = write_config(folder, 1, BY_STEPS, ONE_EPOCH)
    command = options(config, folder / 'work', ONE)
    assert run(TRAIN, *command) == 0
    state = final(folder / 'work', 'iter_3.pth')['state_dict']
    images = state['head.index_queue'].view(3, 40).sort(dim=1).values
    assert (images >= 0).all()
    return config, images


def options(config, work_dir, batch_size, *more):
    size = f'train_dataloader.batch_size={batch_size}'
    settings = '--no-validate', '--cfg-options', size, *more
    return config, '--work-dir', work_dir, *settings


@pytest.mark.slow
def test_two_processes_then_one_with_a_shorter_queue(tmp_path, epoch):
    config, images = epoch
    killed = options(config, tmp_path, TWO)
    codes = run_processes(2, TRAIN, *killed, kill=('step', 2, KILL))
    assert -KILL in codes and 0 not in codes
    resumed = options(config, tmp_path, ONE, 'model.head.queue_len=60')
    assert run(TRAIN, *resumed, '--resume') == 0
    log = log_of(tmp_path)
    assert 'its newest 60 of 120 keys are kept' in log
    assert 'written by 2 processes, now there are 1' in log
    assert 'goes on after 2 batches of epoch 1; 0 images are seen twice' in log
    checkpoint = final(tmp_path, 'iter_3.pth')
    queue = checkpoint['state_dict']['head.index_queue']
    # The last step wrote over the oldest: it saw what was left of the epoch.
    assert torch.equal(queue[:40].sort().values, images[2])
    assert torch.isin(queue[40:], images[1]).all()
    assert len(checkpoint['exact_resume']['ranks']) == 1


@pytest.mark.slow
def test_one_process_then_two_with_a_longer_queue(tmp_path, epoch):
    config, images = epoch
    killed = options(config, tmp_path, ONE)
    assert run(TRAIN, *killed, kill=('step', 2, KILL)) == -KILL
    resumed = options(config, tmp_path, TWO, 'model.head.queue_len=200')
    assert run_processes(2, TRAIN, *resumed, '--resume') == [0, 0]
    log = log_of(tmp_path)
    assert 'its 120 keys are kept, random unlabeled ones make them 200' in log
    assert 'written by 1 processes, now there are 2' in log
    checkpoint = final(tmp_path, 'iter_3.pth')
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


@pytest.mark.slow
def test_mmpretrains_moco_goes_on_as_unimoco(tmp_path):
    """Made by mmpretrain's tool, loop, hook and model."""
    tool = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'
    moco = write_config(tmp_path, 0, 'interval=1', MOCO, 'moco')
    work_dir = tmp_path / 'work'
    assert run(tool, moco, '--work-dir', work_dir, '--no-validate') == 0
    before = final(work_dir, 'epoch_1.pth')
    assert before['state_dict']['queue'].shape == (64, 60)

    no_best = 'default_hooks = dict(checkpoint=dict(save_best=None))'
    ours = write_config(tmp_path, 0, 'interval=1', no_best, 'ours')
    command = ours, '--work-dir', work_dir, '--no-validate', '--resume'
    assert run(TRAIN, *command, work_dir / 'epoch_1.pth') == 0
    log = log_of(work_dir)
    assert "of mmpretrain's MoCo: it goes on as UniMoCo" in log
    assert 'its 60 keys are kept, random unlabeled ones make them 64' in log
    assert 'resumed epoch: 1, iter: 7' in log
    after = final(work_dir, 'epoch_2.pth')
    assert after['meta']['epoch'] == 2 and after['meta']['iter'] == 14
    assert (after['state_dict']['head.label_queue'] >= 0).any()
    # The optimizer went on too, parameter by parameter.
    old, new = (x['optimizer']['state'] for x in (before, after))
    assert old.keys() == new.keys()
    assert {int(x['step']) for x in old.values()} == {7}
    assert {int(x['step']) for x in new.values()} == {14}


def by_iterations(folder, max_iters):
    """The shipped pieces for iterations, on the small data."""
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


@pytest.mark.slow
def test_killed_run_of_iterations_ends_as_the_undisturbed_one(tmp_path):
    config = by_iterations(tmp_path, max_iters=12)
    command = TRAIN, config, '--work-dir'
    assert run(*command, tmp_path / 'undisturbed') == 0
    work_dir = tmp_path / 'killed'
    # In the second pass over the data, one step after a checkpoint.
    assert run(*command, work_dir, kill=('step', 9, KILL)) == -KILL
    assert (work_dir / 'last_checkpoint').read_text().endswith('iter_8.pth')
    assert run(*command, work_dir, '--resume') == 0
    expected = final(tmp_path / 'undisturbed', 'iter_12.pth')
    assert list(differences(expected, final(work_dir, 'iter_12.pth'))) == []
