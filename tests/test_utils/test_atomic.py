import pytest

from mmunimoco.utils.atomic import write_atomic


def test_write_atomic_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / 'folder' / 'file'
    write_atomic(path, 'old')
    with pytest.raises(TypeError):
        write_atomic(path, 1)
    assert path.read_text() == 'old'
    assert list(path.parent.iterdir()) == [path]


def test_write_atomic_leaves_nothing_behind_when_renaming_fails(
    tmp_path, monkeypatch
):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.replace', fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / 'file', 'new')
    assert list(tmp_path.iterdir()) == []
