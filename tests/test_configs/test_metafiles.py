"""The shipped metafiles are correct, and the linter finds faults."""

import importlib.util
from pathlib import Path

import pytest
from mmengine.fileio import dump
from mmpretrain.apis.model import ModelHub

ROOT = Path(__file__).parents[2]
NAME = 'algo_r50_2xb8-coslr-3e_data_tau-0.1'


@pytest.fixture(scope='module')
def linter():
    """Load tools/misc/check_metafile.py as a module."""
    path = ROOT / 'tools/misc/check_metafile.py'
    spec = importlib.util.spec_from_file_location('check_metafile', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path):
    """Write a project of one config without a fault: (root, metafile)."""
    folder = tmp_path / 'configs/algo'
    folder.mkdir(parents=True)
    (tmp_path / 'configs/_base_').mkdir()
    (tmp_path / 'configs/_base_/piece.py').touch()
    (folder / f'{NAME}.py').touch()
    (folder / 'README.md').write_text(
        f'[config]({NAME}.py) [web](https://example.org) [top](#algo)'
    )
    metafile = {
        'Collections': [
            {
                'Name': 'Algo',
                'Paper': {'Title': 'A title'},
                'README': 'configs/algo/README.md',
            }
        ],
        'Models': [
            {
                'Name': NAME,
                'Metadata': {'Epochs': 3, 'Batch Size': 16},
                'In Collection': 'Algo',
                'Config': f'configs/algo/{NAME}.py',
            }
        ],
    }
    index = {'Import': ['configs/algo/metafile.yml']}
    dump(index, str(tmp_path / 'model-index.yml'))
    dump(metafile, str(folder / 'metafile.yml'))
    return tmp_path, metafile


def test_shipped_metafiles_are_correct(linter, project):
    assert linter.check_metafiles(ROOT) == []
    assert linter.check_metafiles(project[0]) == []


def test_mmpretrain_can_register_the_model_index(linter, monkeypatch):
    monkeypatch.setattr(ModelHub, '_models_dict', {})
    ModelHub.register_model_index(ROOT / 'model-index.yml', ROOT)
    listed = {model.config for model in ModelHub._models_dict.values()}
    assert listed == {str(path) for path in linter.find_configs(ROOT)}


@pytest.mark.parametrize(
    ('part', 'key', 'value', 'fault'),
    [
        ('Models', 'Name', 'another', 'Name differs'),
        ('Models', 'Config', 'configs/algo/gone.py', 'does not exist'),
        ('Models', 'In Collection', 'Other', 'In Collection Other'),
        ('Models', 'Metadata', {'Epochs': 4, 'Batch Size': 16}, '(16, 4)'),
        ('Models', 'Metadata', {'Epochs': 3, 'Batch Size': 8}, '(8, 3)'),
        ('Models', 'Weights', 'gone.pth', 'Weights gone.pth does not exist'),
        ('Models', 'Weights', 'model-index.yml', 'MD5 of model-index.yml is'),
        ('Models', 'Training Log', 'gone.log', 'Log gone.log does not exist'),
        ('Collections', 'Name', None, 'no Name'),
        ('Collections', 'Paper', {}, 'no Title'),
        ('Collections', 'README', 'configs/algo/GONE.md', 'does not exist'),
    ],
)
def test_wrong_entry(linter, project, part, key, value, fault):
    root, metafile = project
    metafile[part][0][key] = value
    dump(metafile, str(root / 'configs/algo/metafile.yml'))
    assert any(fault in line for line in linter.check_metafiles(root))


@pytest.mark.parametrize('times', [0, 2])
def test_config_must_be_listed_once(linter, project, times):
    root, metafile = project
    metafile['Models'] *= times
    dump(metafile, str(root / 'configs/algo/metafile.yml'))
    assert f'listed {times} times' in linter.check_metafiles(root)[0]


def test_metafile_must_be_imported_and_exist(linter, project):
    root, _ = project
    dump({'Import': []}, str(root / 'model-index.yml'))
    assert 'imported 0 times' in linter.check_metafiles(root)[0]
    twice = 2 * ['configs/algo/metafile.yml']
    dump({'Import': twice}, str(root / 'model-index.yml'))
    assert 'imported 2 times' in linter.check_metafiles(root)[0]
    both = ['configs/algo/metafile.yml', 'configs/gone/metafile.yml']
    dump({'Import': both}, str(root / 'model-index.yml'))
    missing = 'configs/gone/metafile.yml does not exist'
    assert missing in linter.check_metafiles(root)[0]


def test_broken_link_ends_with_status_1(linter, project, monkeypatch, capsys):
    root, _ = project
    (root / 'configs/algo/README.md').write_text('[x](gone.py#part)')
    monkeypatch.setattr('sys.argv', ['check_metafile.py', str(root)])
    assert linter.main() == 1
    fault = 'configs/algo/README.md: link to missing gone.py'
    assert fault in capsys.readouterr().out.splitlines()
    monkeypatch.setattr('sys.argv', ['check_metafile.py', str(root / 'gone')])
    assert linter.main() == 2
    assert 'is not a folder' in capsys.readouterr().err
