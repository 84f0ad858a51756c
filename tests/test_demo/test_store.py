import json

import pytest

from demo.store import StageStore, fingerprint


def test_fingerprint_depends_on_every_part_and_not_on_key_order():
    assert fingerprint('a', {'x': 1, 'y': 2}) == fingerprint(
        'a', {'y': 2, 'x': 1}
    )
    digests = {
        fingerprint('a', {'x': 1}),
        fingerprint('a', {'x': 2}),
        fingerprint('b', {'x': 1}),
        fingerprint('a', {'x': 1}, 'upstream'),
    }
    assert len(digests) == 4


def test_stage_goes_from_absent_over_started_to_finished(tmp_path):
    store = StageStore(tmp_path / 'stage', 'f')
    assert store.state == 'absent'
    store.begin()
    assert store.state == 'started'
    with pytest.raises(ValueError, match='not finished'):
        _ = store.result
    store.finish(dict(top1=1.5))
    assert store.state == 'finished'
    assert store.result == dict(top1=1.5)


def test_begin_keeps_a_started_stage_and_empties_a_changed_one(tmp_path):
    folder = tmp_path / 'stage'
    StageStore(folder, 'old').begin()
    (folder / 'epoch_1.pth').touch()
    StageStore(folder, 'old').begin()
    assert (folder / 'epoch_1.pth').exists()

    changed = StageStore(folder, 'new')
    assert changed.state == 'changed'
    changed.begin()
    assert not (folder / 'epoch_1.pth').exists()
    assert changed.state == 'started'


@pytest.mark.parametrize('content', ['', '{"finger', '[]', 'null'])
def test_damaged_record_counts_as_absent(tmp_path, content):
    store = StageStore(tmp_path, 'f')
    (tmp_path / 'stage.json').write_text(content)
    assert store.state == 'absent'


def test_record_is_readable(tmp_path):
    store = StageStore(tmp_path, 'f')
    store.begin()
    store.finish(dict(top1=2.0))
    record = json.loads((tmp_path / 'stage.json').read_text())
    assert record == dict(
        fingerprint='f', finished=True, result=dict(top1=2.0)
    )
