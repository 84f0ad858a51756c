"""Runs are killed for real, resumed, and compared with undisturbed ones."""

from pathlib import Path

import mmpretrain
import pytest
import torch
from exact_runs import (
    KILL,
    ROOT,
    TERM,
    run,
    run_processes,
    write_config,
)

from benchmarks.checkpoint_differences import differences
from mmunimoco.engine.preemption_hook import REQUEUE
from mmunimoco.utils.safe_load import read_checkpoint

TRAIN = ROOT / 'tools/train.py'
THEIR_TRAIN = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'
BY_STEPS = 'by_epoch=False, interval=2'
STEPS = 14  # 140 images an epoch, of which 50 are 10 labeled ones


def final(work_dir, name=f'iter_{STEPS}.pth'):
    return read_checkpoint(str(work_dir / name))


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """Last checkpoint of a run without workers that nothing happened to."""
    folder = tmp_path_factory.mktemp('undisturbed')
    config = write_config(folder, 0, BY_STEPS)
    assert run(TRAIN, config, '--work-dir', folder / 'work') == 0
    return final(folder / 'work')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('workers', 'point', 'passes', 'tool'),
    [
        # In the second epoch, one step after a checkpoint.
        (0, 'step', 9, TRAIN),
        # Between writing a checkpoint and giving it its name.
        (1, 'rename', 4, THEIR_TRAIN),
        # After the last step of an epoch, before its result is known.
        (4, 'validation', 0, TRAIN),
    ],
)
def test_killed_run_ends_as_the_undisturbed_one(
    tmp_path, undisturbed, workers, point, passes, tool
):
    config = write_config(tmp_path, workers, BY_STEPS)
    command = [tool, config, '--work-dir', tmp_path / 'work']
    assert run(*command, kill=(point, passes, KILL)) == -KILL
    # The checkpoint knows the seed.
    options = ['--resume', '--cfg-options', 'randomness.seed=None']
    assert run(*command, *options) == 0
    assert list(differences(undisturbed, final(tmp_path / 'work'))) == []
    assert not list((tmp_path / 'work').glob('.*.part'))


@pytest.mark.slow
def test_full_disk_costs_one_checkpoint(tmp_path, undisturbed):
    config = write_config(tmp_path, 0, BY_STEPS)
    work_dir = tmp_path / 'work'
    # The second checkpoint; each has a last_checkpoint too.
    command = [TRAIN, config, '--work-dir', work_dir]
    assert run(*command, kill=('rename', 2, 0)) == 0
    log = next(work_dir.glob('*/*.log')).read_text()
    assert 'iter_4.pth could not be written: [Errno 28]' in log
    assert 'iter_2.pth' in log.split('could not be written')[1]
    assert list(differences(undisturbed, final(work_dir))) == []


LOST = """
custom_imports = dict(imports=['mmunimoco', 'run_faults'])
custom_hooks = [
    *_base_.custom_hooks, dict(type='FolderLost', folder={!r}, step=3)]
"""


@pytest.mark.slow
def test_run_stops_when_too_many_saves_fail_and_goes_on(tmp_path, undisturbed):
    folder, work_dir = tmp_path / 'out/work', tmp_path / 'work'
    checkpoint = f'{BY_STEPS}, out_dir={str(folder.parent)!r}'
    lost = LOST.format(str(folder))
    config = write_config(tmp_path, 0, checkpoint, lost)
    command = [TRAIN, config, '--work-dir', work_dir]
    assert run(*command) == 1
    log = next(work_dir.glob('*/*.log')).read_text()
    for step, more in ((4, 3), (6, 2), (7, 1)):  # 7 ends the epoch
        assert f'iter_{step}.pth could not be written: [Errno ' in log
        assert f'stops after {more} more of these' in log
    assert 'The best checkpoint could not be written' in log
    assert (work_dir / 'last_checkpoint').read_text().endswith('iter_2.pth')
    # Mended by hand.
    folder.unlink()
    moved = folder.with_suffix('.moved')
    assert [path.name for path in moved.glob('*.pth')] == ['iter_2.pth']
    moved.rename(folder)
    moved.touch()
    assert run(*command, '--resume') == 0
    assert list(differences(undisturbed, final(folder))) == []


@pytest.fixture(scope='module')
def undisturbed_epochs(tmp_path_factory):
    """The same with checkpoints of epochs."""
    folder = tmp_path_factory.mktemp('undisturbed_epochs')
    config = write_config(folder, 1, 'interval=1')
    assert run(TRAIN, config, '--work-dir', folder / 'work') == 0
    return final(folder / 'work', 'epoch_2.pth')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('point', 'passes', 'saved'),
    [
        # SIGTERM saves a checkpoint of an iteration after that step.
        ('step', 9, 'iter_10.pth'),
        # It ends a validation at once; that is done again.
        ('validation', 0, 'epoch_1.pth'),
    ],
)
def test_preempted_run_ends_as_the_undisturbed_one(
    tmp_path, undisturbed_epochs, point, passes, saved
):
    config = write_config(tmp_path, 1, 'interval=1')
    work_dir = tmp_path / 'work'
    command = [TRAIN, config, '--work-dir', work_dir]
    assert run(*command, kill=(point, passes, TERM)) == REQUEUE
    assert (work_dir / 'last_checkpoint').read_text().endswith(saved)
    # A launcher that starts it again needs no --resume.
    assert run(*command, env=dict(TORCHELASTIC_RESTART_COUNT='1')) == 0
    resumed = final(work_dir, 'epoch_2.pth')
    assert list(differences(undisturbed_epochs, resumed)) == []
    # It has had its day.
    assert not (work_dir / 'iter_10.pth').exists()


@pytest.mark.slow
def test_two_killed_processes_end_as_the_undisturbed_ones(tmp_path):
    config = write_config(tmp_path, 1, 'by_epoch=False, interval=1')

    def train(name, *options, kill=None):
        command = TRAIN, config, '--work-dir', tmp_path / name, *options
        return run_processes(2, *command, kill=kill)

    assert train('undisturbed') == [0, 0]
    # One may fail for want of the other before it is killed itself.
    codes = train('killed', kill=('step', 5, KILL))
    assert -KILL in codes and 0 not in codes
    assert train('killed', '--resume') == [0, 0]
    expected = final(tmp_path / 'undisturbed', 'iter_6.pth')
    killed = final(tmp_path / 'killed', 'iter_6.pth')
    assert list(differences(expected, killed)) == []
    # Each process had BN statistics of its own, and kept them.
    first, second = expected['exact_resume']['ranks']
    assert not first['buffers']
    assert any(name.endswith('running_mean') for name in second['buffers'])
    assert torch.equal(
        first['random']['torch'],
        killed['exact_resume']['ranks'][0]['random']['torch'],
    )
