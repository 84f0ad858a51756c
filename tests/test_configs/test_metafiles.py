"""The shipped metafiles are right, and the linter finds what is not."""

import runpy
import sys
from pathlib import Path

import pytest
from mmengine.fileio import dump
from mmpretrain.apis.model import ModelHub
from mmunimoco.utils.metafile import (
    batch_and_epochs,
    check_metafiles,
    find_configs,
)

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/misc/check_metafile.py'
NAME = 'algo_r50_2xb8-coslr-3e_data_tau-0.1'


@pytest.fixture
def project(tmp_path):
    """A project of one config without a fault, as (root, metafile)."""
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


def faults_after(project, metafile):
    dump(metafile, str(project / 'configs/algo/metafile.yml'))
    return check_metafiles(project)


def test_shipped_metafiles_are_right():
    assert check_metafiles(ROOT) == []


def test_mmpretrain_can_register_the_model_index(monkeypatch):
    monkeypatch.setattr(ModelHub, '_models_dict', {})
    ModelHub.register_model_index(ROOT / 'model-index.yml', ROOT)
    listed = {model.config for model in ModelHub._models_dict.values()}
    assert listed == {str(path) for path in find_configs(ROOT)}


def test_nothing_is_reported_of_a_right_project(project):
    assert check_metafiles(project[0]) == []


@pytest.mark.parametrize(
    ('key', 'value', 'told'),
    [
        ('Name', 'another', 'Name differs'),
        ('Config', 'configs/algo/gone.py', 'gone.py does not exist'),
        ('In Collection', 'Other', 'In Collection Other'),
        ('Metadata', {'Epochs': 4, 'Batch Size': 16}, '(16, 4)'),
        ('Metadata', {'Epochs': 3, 'Batch Size': 8}, '(8, 3)'),
    ],
)
def test_wrong_model(project, key, value, told):
    root, metafile = project
    metafile['Models'][0][key] = value
    assert any(told in fault for fault in faults_after(root, metafile))


@pytest.mark.parametrize(
    ('key', 'value', 'told'),
    [
        ('Name', None, 'no Name'),
        ('Paper', {}, 'no Title'),
        ('README', 'configs/algo/GONE.md', 'GONE.md does not exist'),
    ],
)
def test_wrong_collection(project, key, value, told):
    root, metafile = project
    metafile['Collections'][0][key] = value
    assert any(told in fault for fault in faults_after(root, metafile))


def test_config_listed_twice_or_never(project):
    root, metafile = project
    metafile['Models'] *= 2
    assert 'listed 2 times' in faults_after(root, metafile)[0]
    metafile['Models'] = []
    assert 'listed 0 times' in faults_after(root, metafile)[0]


def test_metafile_not_imported_or_missing(project):
    root, _ = project
    dump({'Import': []}, str(root / 'model-index.yml'))
    assert 'imported 0 times' in check_metafiles(root)[0]
    both = ['configs/algo/metafile.yml', 'configs/gone/metafile.yml']
    dump({'Import': both}, str(root / 'model-index.yml'))
    assert (
        'configs/gone/metafile.yml does not exist'
        in (check_metafiles(root)[0])
    )


def test_broken_link(project):
    root, _ = project
    (root / 'configs/algo/README.md').write_text('[x](gone.py#part)')
    assert check_metafiles(root) == [
        'configs/algo/README.md: link to missing gone.py'
    ]


def test_no_project_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='configs'):
        check_metafiles(tmp_path)


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('unimoco_resnet50_8xb32-coslr-200e_in1k-10pct_tau-0.1', (256, 200)),
        ('resnet50_8xb32-linear-steplr-100e_in1k', (256, 100)),
        ('mask-rcnn_r50-c4_ms-1x_coco', None),
    ],
)
def test_batch_and_epochs(name, told):
    assert batch_and_epochs(name) == told


def test_command_line_tells_by_its_exit_status(project, monkeypatch, capsys):
    root, metafile = project

    def run(folder):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), str(folder)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name='__main__')
        return end.value.code

    assert run(root) == 0
    metafile['Models'] = []
    dump(metafile, str(root / 'configs/algo/metafile.yml'))
    assert run(root) == 1
    assert 'listed 0 times' in capsys.readouterr().out
    assert run(root / 'configs') == 2
    assert 'not a folder' in capsys.readouterr().err
