"""Numbers in the committed docs are those of their records."""

import pytest

from benchmarks import docs_tables


def test_docs_agree_with_their_records(capsys):
    assert docs_tables.main(['--check']) == 0, capsys.readouterr().out


def test_blocks_are_filled(monkeypatch):
    monkeypatch.setitem(docs_tables.VALUES, 'answer', lambda: '42')
    text = 'a <!-- value: answer -->0<!-- end --> b'
    filled = docs_tables.fill(text, 'x.md')
    assert filled == 'a <!-- value: answer -->42<!-- end --> b'
    assert docs_tables.fill(filled, 'x.md') == filled
    table = '<!-- table: views -->\nold\n<!-- end -->'
    assert '| 100 % |' in docs_tables.fill(table, 'x.md')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('<!-- table: no-such --><!-- end -->', "x.md: unknown table 'no-su"),
        ('<!-- table: views --> and no more', 'lacks <!-- end -->'),
        (
            '<!-- table: views --> <!-- table: views --><!-- end -->',
            'lacks <!-- end -->',
        ),
    ],
)
def test_broken_marks_are_errors(text, message):
    with pytest.raises(ValueError, match=message):
        docs_tables.fill(text, 'x.md')


def test_files_are_rewritten_unless_only_checked(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(docs_tables, 'ROOT', tmp_path)
    monkeypatch.setitem(docs_tables.VALUES, 'answer', lambda: '42')
    marked = '<!-- value: answer -->{}<!-- end -->'
    names = 'README.md', 'docs/a/x.md', 'configs/b/README.md'
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(marked.format(0))
    for arguments, status, said, value in (
        (['--check'], 1, 'differs from its records', 0),
        ([], 0, 'rewritten', 42),
        (['--check'], 0, '', 42),
    ):
        assert docs_tables.main(arguments) == status
        lines = [f'{name} {said}' for name in names] if said else []
        assert capsys.readouterr().out.splitlines() == lines
        for name in names:
            assert (tmp_path / name).read_text() == marked.format(value)
    (tmp_path / 'README.md').write_text('<!-- value: gone -->0<!-- end -->')
    assert docs_tables.main([]) == 2
    error = "error: README.md: unknown value 'gone'; choose from"
    assert capsys.readouterr().err.startswith(error)
