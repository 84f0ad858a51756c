import pytest

from mmunimoco.utils.atomic import write_atomic, write_whole


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / 'folder' / 'file'
    write_atomic(path, 'old')
    with pytest.raises(TypeError):
        write_atomic(path, 1)
    assert path.read_text() == 'old'
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / 'disk').mkdir()
    link = tmp_path / 'out.json'
    link.symlink_to(tmp_path / 'disk/real.json')
    for text in ('new', 'newer'):
        write_atomic(link, text)
        assert link.is_symlink() and link.read_text() == text
    assert [x.name for x in (tmp_path / 'disk').iterdir()] == ['real.json']


def test_a_full_disk_is_an_error_of_the_disk(tmp_path):
    """Torch calls it a RuntimeError."""

    def write(path):
        path.write_text('half')
        raise RuntimeError('unexpected pos 64 vs 0')

    with pytest.raises(OSError, match=r'x\.pth cannot be written: unexp'):
        write_whole(tmp_path / 'x.pth', write)
    assert list(tmp_path.iterdir()) == []


def test_failed_rename_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.replace', fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / 'file', 'new')
    assert list(tmp_path.iterdir()) == []
