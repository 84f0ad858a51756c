"""The command line that composes scenes."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/dataset_converters/make_demo_scenes.py'
OPTIONS = ['--train', '3', '--val', '2', '--seed', '4', '--size', '96']


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('make_demo_scenes', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scenes_of_the_wished_number_and_size(tmp_path):
    out = tmp_path / 'scenes'
    done = subprocess.run(
        [sys.executable, TOOL, out, *OPTIONS],
        capture_output=True,
        text=True,
        env=dict(PYTHONPATH=str(ROOT)),
    )
    assert done.returncode == 0, done.stderr
    assert '3 training and 2 validation scenes' in done.stdout
    for name, count in (('train', 3), ('val', 2)):
        text = (out / f'annotations/instances_{name}.json').read_text()
        images = json.loads(text)['images']
        assert [(i['height'], i['width']) for i in images] == [
            (96, 96)
        ] * count


def test_nothing_is_overwritten(tool, tmp_path, capsys):
    (tmp_path / 'mine').touch()
    assert tool.main([str(tmp_path), *OPTIONS]) == 1
    assert 'not empty' in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ['mine']


@pytest.mark.parametrize(
    ('option', 'message'),
    [('--size=20', '64'), ('--train=0', 'train scene is needed')],
)
def test_wrong_options_are_told(tool, tmp_path, capsys, option, message):
    assert tool.main([str(tmp_path / 'x'), option]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'x').exists()


def test_negative_seed_is_refused(tool, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / 'x'), '--seed=-1'])
    assert '--seed must be 0 or more' in capsys.readouterr().err
