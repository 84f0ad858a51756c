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
