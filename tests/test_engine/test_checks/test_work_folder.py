"""One run at a time in a work folder."""

import time
from multiprocessing import get_context

import pytest
from noise_runs import noise_runner

from mmunimoco.engine.checks.work_folder import lock_folder

PREFLIGHT = [dict(type='PreflightHook')]


def hold(folder, sender):
    lock = lock_folder(folder)
    sender.send('locked')
    time.sleep(60)
    lock.close()


def test_a_folder_belongs_to_a_run_until_it_dies(tmp_path):
    context = get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    other = context.Process(target=hold, args=(tmp_path, sender))
    other.start()
    try:
        assert receiver.recv() == 'locked'
        message = rf'Process {other.pid} on .* is training in {tmp_path}'
        with pytest.raises(BlockingIOError, match=message):
            noise_runner(tmp_path, hooks=PREFLIGHT).train()
        assert not list(tmp_path.glob('*.pth'))
    finally:
        other.kill()
        other.join()
    lock_folder(tmp_path).close()
    # The owner, without those before.
    assert len((tmp_path / 'run.lock').read_text().splitlines()) == 1


def take(folder):
    lock_folder(folder).close()


def test_a_run_that_is_over_leaves_the_folder_to_others(tmp_path):
    runner = noise_runner(tmp_path, hooks=PREFLIGHT)
    runner.train()
    # As a test after training does, among the checkpoints of this run.
    runner.call_hook('before_run')
    other = get_context('fork').Process(target=take, args=(tmp_path,))
    other.start()
    other.join(60)
    assert other.exitcode == 0


def test_a_new_run_does_not_start_among_the_checkpoints_of_another(tmp_path):
    noise_runner(tmp_path, hooks=PREFLIGHT).train()
    before = (tmp_path / 'epoch_1.pth').stat().st_mtime_ns
    runner = noise_runner(tmp_path, hooks=PREFLIGHT, epochs=2)
    with pytest.raises(FileExistsError, match='such as epoch_1.pth.*--resume'):
        runner.train()
    assert (tmp_path / 'epoch_1.pth').stat().st_mtime_ns == before
    assert not (tmp_path / 'epoch_2.pth').exists()


def test_a_run_from_elsewhere_does_not_replace_the_checkpoints_here(tmp_path):
    here, there = tmp_path / 'here', tmp_path / 'there'
    for folder in (here, there):
        noise_runner(folder, hooks=PREFLIGHT, epochs=2).train()
    before = (here / 'epoch_2.pth').read_bytes()

    def resume(path, work_dir=here):
        options = dict(resume=True, load_from=str(path))
        noise_runner(work_dir, hooks=PREFLIGHT, epochs=2, **options).train()

    with pytest.raises(FileExistsError, match='2 checkpoints.*and no file'):
        resume(there / 'epoch_1.pth')
    assert (here / 'epoch_2.pth').read_bytes() == before
    resume(there / 'epoch_1.pth', tmp_path / 'new')
    (tmp_path / 'link').symlink_to(here)
    resume(tmp_path / 'link/epoch_1.pth')
