"""The newest checkpoint that can be read is resumed."""

import os
from types import SimpleNamespace

import pytest
import torch

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


def test_empty_folder(tmp_path):
    assert search(tmp_path) == (None, [])
