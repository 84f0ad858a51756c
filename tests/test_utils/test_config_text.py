from mmunimoco.utils.config_text import config_value


def test_config_is_not_executed(tmp_path):
    mark = tmp_path / 'mark'
    text = (
        f"a = open({str(mark)!r}, 'w')\nb = dict(c=[dict(d=-1)], **{{'e': 2}})"
    )
    assert config_value(text, 'a') is None
    assert config_value(text, 'b') == dict(c=[dict(d=-1)], e=2)
    assert config_value(text, 'missing') is None
    assert config_value('not python', 'a') is None
    assert config_value(None, 'a') is None
    assert not mark.exists()


def test_path_into_a_config():
    text = """
model = dict(backbone=dict(depth=18, **{'style': 'pytorch'}), head=build())
model = dict(backbone=dict(depth=50, arch=None), head=build())
"""
    assert config_value(text, 'model', 'backbone') == dict(depth=50, arch=None)
    # Only what is asked for must be literals.
    assert config_value(text, 'model') is None
    assert config_value(text, 'model', 'backbone', 'depth') is None
    assert config_value(text, 'model', 'neck') is None
