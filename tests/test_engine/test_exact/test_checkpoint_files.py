"""The newest checkpoint that can be read is resumed."""

import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from noise_runs import noise_runner

from mmunimoco.engine import ExactCheckpointHook
from mmunimoco.engine.exact.checkpoint_files import find_readable


@pytest.fixture
def run_of_three(tmp_path):
    """Three checkpoints; the oldest has the largest number."""
    for age, number in enumerate((9, 2, 3)):
        path = tmp_path / f'epoch_{number}.pth'
        torch.save(dict(message_hub={}, state_dict={}), path)
        os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_3.pth')
    return tmp_path


def search(folder):
    return find_readable(folder, folder, lambda name: name.startswith('epoch'))


def find(folder):
    return search(folder)[0]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def change_byte(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


def test_named_one_is_found(run_of_three):
    assert find(run_of_three).name == 'epoch_3.pth'


def test_truncated_ones_are_skipped(run_of_three):
    cut(run_of_three / 'epoch_3.pth')
    assert find(run_of_three).name == 'epoch_2.pth'
    cut(run_of_three / 'epoch_2.pth')
    found, damaged = search(run_of_three)
    assert found.name == 'epoch_9.pth'
    assert [path.name for path in damaged] == ['epoch_3.pth', 'epoch_2.pth']
    cut(run_of_three / 'epoch_9.pth')
    with pytest.raises(ValueError, match='none of the 3 checkpoints'):
        find(run_of_three)


@pytest.mark.parametrize('place', [0.2, 0.5, 0.8])
def test_one_changed_byte_is_found(run_of_three, place):
    """PyTorch reads such a file without an error."""
    path = run_of_three / 'epoch_3.pth'
    torch.save(dict(message_hub={}, weight=torch.zeros(5000)), path)
    change_byte(path, place)
    assert torch.load(path, weights_only=True)['weight'].any()
    assert find(run_of_three).name == 'epoch_2.pth'


def test_damaged_file_given_explicitly_is_refused(run_of_three):
    path = run_of_three / 'epoch_3.pth'
    runner = SimpleNamespace(_resume=True, _load_from=str(path))
    ExactCheckpointHook().before_run(runner)
    torch.save(dict(message_hub={}, weight=torch.zeros(5000)), path)
    change_byte(path, 0.5)
    with pytest.raises(ValueError, match=r'epoch_3\.pth is damaged'):
        ExactCheckpointHook().before_run(runner)


@pytest.mark.parametrize('text', ['', None, 'epoch_7.pth'])
def test_last_checkpoint_is_missing_or_wrong(run_of_three, text):
    (run_of_three / 'last_checkpoint').unlink()
    if text is not None:
        (run_of_three / 'last_checkpoint').write_text(text)
    assert find(run_of_three).name == 'epoch_3.pth'


def test_weights_alone_are_not_resumed(run_of_three):
    torch.save(dict(state_dict={}), run_of_three / 'epoch_3.pth')
    found, damaged = search(run_of_three)
    # They are not damaged, so they are never removed.
    assert found.name == 'epoch_2.pth' and damaged == []


def test_a_copied_folder_is_resumed_from_its_own_file(run_of_three):
    """Although the original is still where ``last_checkpoint`` says."""
    elsewhere = run_of_three / 'elsewhere'
    elsewhere.mkdir()
    for name in ('epoch_3.pth', 'epoch_4.pth'):
        torch.save(dict(message_hub={}), elsewhere / name)
    named = run_of_three / 'last_checkpoint'
    named.write_text(str(elsewhere / 'epoch_3.pth'))
    assert find(run_of_three) == run_of_three / 'epoch_3.pth'
    # Only there: the checkpoint that a run has been resumed from.
    named.write_text(str(elsewhere / 'epoch_4.pth'))
    assert find(run_of_three) == elsewhere / 'epoch_4.pth'


def test_checkpoints_of_a_preempted_run_count_and_best_ones_do_not(
    run_of_three,
):
    (run_of_three / 'last_checkpoint').unlink()
    for age, name in enumerate(('iter_30.pth', 'best_score_epoch_3.pth')):
        torch.save(dict(message_hub={}), run_of_three / name)
        os.utime(run_of_three / name, (2000 + age, 2000 + age))
    runner = SimpleNamespace(
        _resume=True, _load_from=None, work_dir=str(run_of_three)
    )
    ExactCheckpointHook().before_run(runner)
    assert runner._load_from == str(run_of_three / 'iter_30.pth')


EXACT = dict(type='ExactEpochLoop', max_epochs=3)


def test_a_damaged_checkpoint_is_replaced_or_removed(tmp_path):
    options = dict(
        train_cfg=EXACT,
        default_hooks=dict(
            checkpoint=dict(
                type='ExactCheckpointHook', interval=1, max_keep_ckpts=2
            )
        ),
    )
    noise_runner(tmp_path, **options).train()
    cut(tmp_path / 'epoch_3.pth')
    (tmp_path / 'iter_30.pth').write_bytes(b'')
    noise_runner(tmp_path, resume=True, **options).train()
    names = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert names == ['epoch_2.pth', 'epoch_3.pth']
    assert torch.load(tmp_path / 'epoch_3.pth', weights_only=False)


class _Stop(Hook):
    def before_train_iter(self, *_, **__):
        raise KeyboardInterrupt


def test_a_checkpoint_given_explicitly_is_the_last_from_then_on(tmp_path):
    """For a restart before the next save; the others may be worse."""
    noise_runner(tmp_path, train_cfg=EXACT).train()
    first = str(tmp_path / 'epoch_1.pth')
    options = dict(train_cfg=EXACT, resume=True)
    runner = noise_runner(tmp_path, [], [_Stop()], load_from=first, **options)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert (tmp_path / 'last_checkpoint').read_text() == first
    runner = noise_runner(tmp_path, [], [_Stop()], **options)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert runner.epoch == 1


def test_a_moved_folder_names_its_own_file(tmp_path):
    """Once it was resumed, also if the run is finished."""
    noise_runner(tmp_path / 'old', train_cfg=EXACT).train()
    (tmp_path / 'old').rename(tmp_path / 'new')
    noise_runner(tmp_path / 'new', train_cfg=EXACT, resume=True).train()
    named = (tmp_path / 'new/last_checkpoint').read_text()
    assert named == str(tmp_path / 'new/epoch_3.pth')


@pytest.mark.parametrize(
    'content', [dict(meta=dict(iter=3)), dict(message_hub={}, meta={})]
)
def test_weights_given_explicitly_are_not_resumed(content):
    with pytest.raises(ValueError, match='holds only weights'):
        ExactCheckpointHook().after_load_checkpoint(
            SimpleNamespace(_resume=True), content
        )


def test_empty_folder(tmp_path):
    assert search(tmp_path) == (None, [])
