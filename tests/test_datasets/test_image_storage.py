"""Images from a cache and from LMDB are those of the folder."""

import runpy
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from mmengine import fileio
from mmpretrain.datasets import CustomDataset

from mmunimoco.datasets import cached_backend
from mmunimoco.datasets.lmdb_file import write_lmdb

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/make_lmdb.py'


@pytest.fixture
def folder(imagenet_folder, tmp_path):
    """A copy that a test may delete."""
    return shutil.copytree(imagenet_folder, tmp_path / 'train')


def pipeline(**backend_args):
    load = dict(type='LoadTwoCrops', scale=8, backend_args=backend_args)
    # What is looked for and absent has to be seen, not another image.
    return [load, dict(type='PackInputs')]


def read(dataset):
    """{name of file: class}; every image is loaded."""
    found = {}
    for i in range(len(dataset)):
        sample = dataset.prepare_data(i)['data_samples']
        found[Path(sample.img_path).name] = int(sample.gt_label)
    return found


def test_a_cached_file_does_not_need_its_source(folder, tmp_path):
    options = dict(backend='cached', cache_dir=str(tmp_path / 'cache'))
    options['keep_free'] = 0
    dataset = CustomDataset(
        data_prefix=str(folder), pipeline=pipeline(**options)
    )
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    contents = [Path(path).read_bytes() for path in paths]
    first = read(dataset)
    shutil.rmtree(folder)
    assert read(dataset) == first and len(first) == 22
    kept = [fileio.get(path, backend_args=options) for path in paths]
    assert kept == contents
    with pytest.raises(FileNotFoundError):
        fileio.get(str(folder / 'other.png'), backend_args=options)


def test_the_cache_leaves_room(folder, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(
        cached_backend.shutil, 'disk_usage', lambda path: usage(100, 0, 100)
    )
    backend = cached_backend.CachedBackend(str(tmp_path / 'cache'), 100)
    path = next(folder.rglob('*.png'))
    assert backend.get(path) == path.read_bytes()
    assert not list((tmp_path / 'cache').rglob('*.*'))
    assert not list((tmp_path / 'cache').iterdir())


def test_two_folders_with_one_cache(folder, tmp_path):
    backend = cached_backend.CachedBackend(str(tmp_path / 'cache'), 0)
    for name, text in (('a', 'one'), ('b', 'two')):
        (folder / name).mkdir()
        (folder / name / 'x.txt').write_text(text)
    for _ in range(2):
        assert backend.get_text(folder / 'a' / 'x.txt') == 'one'
        assert backend.get_text(folder / 'b' / 'x.txt') == 'two'


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOL), run_name='__main__')
    return end.value.code


def test_lmdb_holds_the_folder(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip('lmdb')
    out = tmp_path / 'train.lmdb'
    arguments = ('--folder', folder, '--out', out)
    assert run_tool(monkeypatch, *arguments) == 0
    assert '22 images' in capsys.readouterr().out
    expected = read(
        CustomDataset(data_prefix=str(folder), pipeline=pipeline())
    )
    shutil.rmtree(folder)
    storage = dict(backend='lmdb', db_path=str(out), subdir=False)
    dataset = CustomDataset(
        data_prefix='', ann_file=f'{out}.txt', pipeline=pipeline(**storage)
    )
    assert read(dataset) == expected
    Path(f'{out}.txt').write_text('n01440764/gone.JPEG 0')
    dataset = CustomDataset(
        data_prefix='', ann_file=f'{out}.txt', pipeline=pipeline(**storage)
    )
    with pytest.raises(FileNotFoundError, match=r'gone\.JPEG'):
        read(dataset)
    folder.mkdir()
    assert run_tool(monkeypatch, *arguments) == 1
    assert 'no sub-folders' in capsys.readouterr().err


def test_lmdb_refuses_what_it_could_not_find_again(folder, tmp_path):
    pytest.importorskip('lmdb')
    (folder / 'ä.png').touch()
    with pytest.raises(ValueError, match='ASCII'):
        write_lmdb(str(tmp_path / 'x.lmdb'), str(folder), [('ä.png', 0)])
    with pytest.raises(FileExistsError, match='remove it'):
        write_lmdb(str(tmp_path / 'x.lmdb'), str(folder), [])
