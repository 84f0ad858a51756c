import pytest

from mmunimoco.utils.atomic import write_atomic


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / 'folder' / 'file'
    write_atomic(path, 'old')
    with pytest.raises(TypeError):
        write_atomic(path, 1)
    assert path.read_text() == 'old'
    assert list(path.parent.iterdir()) == [path]


def test_failed_rename_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.replace', fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / 'file', 'new')
    assert list(tmp_path.iterdir()) == []
