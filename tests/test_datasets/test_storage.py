"""Images from a cache, LMDB or tar files equal those of the folder."""

import io
import runpy
import shutil
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest
from mmengine import fileio
from mmpretrain.datasets import CustomDataset

from mmunimoco.datasets import (
    CachedBackend,
    PartialLabels,
    TarBackend,
    storage,
)
from mmunimoco.datasets.storage import index_tars

TOOLS = Path(__file__).parents[2] / 'tools/dataset_converters'


@pytest.fixture
def folder(imagenet_folder, tmp_path):
    """A copy that tests may delete."""
    return shutil.copytree(imagenet_folder, tmp_path / 'train')


def pipeline(**backend_args):
    load = dict(type='LoadTwoCrops', scale=8, backend_args=backend_args)
    return [load, dict(type='PackInputs')]


def read(dataset):
    """Load every image; return {file name: class}."""
    found = {}
    for i in range(len(dataset)):
        sample = dataset.prepare_data(i)['data_samples']
        found[Path(sample.img_path).name] = int(sample.gt_label)
    return found


def test_cached_files_do_not_need_their_source(folder, tmp_path):
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


def test_cache_leaves_space_free(folder, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(
        storage.shutil, 'disk_usage', lambda path: usage(100, 0, 100)
    )
    backend = CachedBackend(str(tmp_path / 'cache'), 100)
    path = next(folder.rglob('*.png'))
    assert backend.get(path) == path.read_bytes()
    assert not list((tmp_path / 'cache').rglob('*.*'))
    assert not list((tmp_path / 'cache').iterdir())


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(
    folder, tmp_path, full_disk, log
):
    """As with a quota: there is space, but not for this user."""
    backend = CachedBackend(str(tmp_path / 'cache'), 0)
    for path in folder.rglob('*.png'):
        assert backend.get(path) == path.read_bytes()
    assert log.text.count('takes no more files ([Errno 28]') == 1
    assert not [x for x in (tmp_path / 'cache').rglob('*') if x.is_file()]


def test_equal_file_names_in_one_cache(folder, tmp_path, monkeypatch):
    backend = CachedBackend(str(tmp_path / 'cache'), 0)
    for name, text in (('a', 'one'), ('b', 'two')):
        (folder / name).mkdir()
        (folder / name / 'x.txt').write_text(text)
    for _ in range(2):
        assert backend.get_text(folder / 'a' / 'x.txt') == 'one'
        assert backend.get_text(folder / 'b' / 'x.txt') == 'two'
    for name, text in (('a', 'one'), ('b', 'two')):
        monkeypatch.chdir(folder / name)
        assert backend.get_text('x.txt') == text


def load_tool(name):
    return runpy.run_path(str(TOOLS / name))


def run_tool(capsys, name, *arguments, main=None):
    """Exit code and output of a tool."""
    main = main or load_tool(name)['main']
    code = main([*map(str, arguments)])
    output = capsys.readouterr()
    return code, output.out + output.err


def test_lmdb_equals_the_folder(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip('lmdb')
    out = tmp_path / 'train.lmdb'
    monkeypatch.setenv('HOME', str(folder.parent))
    home = f'~/{folder.name}'
    arguments = (capsys, 'make_lmdb.py', '--folder', home, '--out', out)
    main = load_tool('make_lmdb.py')['main']
    main.__globals__['BATCH'] = 5  # of 22 files
    code, text = run_tool(*arguments, main=main)
    assert code == 0 and '22 images' in text
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
    code, text = run_tool(*arguments)
    assert code == 1 and 'no sub-folders' in text


def test_lmdb_of_partly_labeled_images_in_a_new_folder(
    folder, tmp_path, capsys
):
    pytest.importorskip('lmdb')
    expected = read(
        CustomDataset(data_prefix=str(folder), pipeline=pipeline())
    )
    (folder / 'Unlabeled').mkdir()  # before the classes, in order
    source = next(folder.rglob('*.png'))
    shutil.copy(source, folder / 'Unlabeled/new.png')
    out = tmp_path / 'fast/disk/train.lmdb'
    code, text = run_tool(
        *(capsys, 'make_lmdb.py', '--folder', folder, '--out', out)
    )
    assert code == 0, text
    storage = dict(backend='lmdb', db_path=str(out), subdir=False)
    dataset = CustomDataset(
        data_prefix='', ann_file=f'{out}.txt', pipeline=pipeline(**storage)
    )
    assert read(dataset) == expected | {'new.png': -1}


def test_lmdb_rejects_names_it_cannot_look_up(folder, tmp_path):
    pytest.importorskip('lmdb')
    write_lmdb = load_tool('make_lmdb.py')['write_lmdb']
    (folder / 'ä.png').touch()
    with pytest.raises(ValueError, match='ASCII'):
        write_lmdb(str(tmp_path / 'x.lmdb'), str(folder), [('ä.png', 0)])
    with pytest.raises(ValueError, match='at most 511 ASCII characters'):
        write_lmdb(str(tmp_path / 'z.lmdb'), str(folder), [(512 * 'x', 0)])
    (folder / ' x.png').touch()
    with pytest.raises(ValueError, match=r"' x\.png' in .* begins with a bl"):
        write_lmdb(str(tmp_path / 'y.lmdb'), str(folder), [(' x.png', 0)])
    with pytest.raises(FileExistsError, match='remove it first'):
        write_lmdb(str(tmp_path / 'x.lmdb'), str(folder), [])


def test_lmdb_on_a_full_disk(folder, tmp_path):
    pytest.importorskip('lmdb')
    write_lmdb = load_tool('make_lmdb.py')['write_lmdb']
    write_lmdb.__globals__['MAP_SIZE'] = 4096
    image = next(folder.rglob('*.png')).relative_to(folder)
    out = tmp_path / 'x.lmdb'
    with pytest.raises(OSError, match=r'x\.lmdb cannot be written: mdb_'):
        write_lmdb(str(out), str(folder), [(str(image), 0)])
    assert not Path(f'{out}.txt').exists()


def write_tar(path, members, folder):
    """Write a tar file; contents are paths in the folder, or bytes."""
    with tarfile.open(path, 'w') as tar:
        for name, content in members.items():
            if isinstance(content, Path):
                tar.add(folder / content, name)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def from_tars(index, **options):
    return CustomDataset(
        data_prefix='',
        ann_file=f'{index}.txt',
        pipeline=pipeline(backend='tar', index=str(index)),
        **options,
    )


def test_tars_of_a_folder(folder, tmp_path, capsys):
    """Same images, classes and selection of labels as from the folder."""
    out, tars = tmp_path / 'lists' / 'train.idx', []
    for number, path in enumerate(sorted(folder.iterdir())):
        tars.append(tmp_path / f'{number}.tar')
        with tarfile.open(tars[-1], 'w') as tar:
            tar.add(path, f'./{path.name}')
    code, text = run_tool(capsys, 'index_tars.py', *tars, '--out', out)
    assert code == 0 and '22 images, 22 with a class' in text
    plain = CustomDataset(data_prefix=str(folder), pipeline=pipeline())
    expected, options = read(plain), dict(label_ratio=0.5, seed=3)
    kept = PartialLabels(plain, **options)
    kept = [len(kept.get_data_info(i)) for i in range(22)]
    paths = [plain.get_data_info(i)['img_path'] for i in range(22)]
    contents = [Path(path).read_bytes() for path in paths]
    shutil.rmtree(folder)
    dataset = from_tars(out)
    assert read(dataset) == expected
    half = PartialLabels(dataset, **options)
    assert [len(half.get_data_info(i)) for i in range(22)] == kept
    storage = dict(backend='tar', index=str(out))
    paths = [dataset.get_data_info(i)['img_path'] for i in range(22)]
    got = [fileio.get(path, backend_args=storage) for path in paths]
    assert got == contents
    with pytest.raises(FileNotFoundError, match=r'gone\.png is not in'):
        fileio.get('gone.png', backend_args=storage)


def test_shards_of_webdataset(folder, tmp_path, monkeypatch, capsys):
    """Classes are in .cls files; an image without one is unlabeled."""
    images = sorted(folder.rglob('*.png'))[:3]
    members = {
        'a/0.png': images[0],
        'a/0.cls': b'7',
        'a/0.json': b'{}',
        'a/1.png': images[1],
    }
    tar = write_tar(tmp_path / 'x-0.tar', members, folder)
    other = write_tar(
        tmp_path / 'x-1.tar', {'a/0.cls': b'2\n', 'a/0.png': images[2]}, folder
    )
    out = tmp_path / 'x.idx'
    arguments = (capsys, 'index_tars.py', tar, other, '--out', out)
    code, text = run_tool(*arguments[:-1], tar / 'x.idx')
    assert code == 1 and f'{tar} is a file, not a folder' in text
    code, text = run_tool(*arguments)
    assert code == 1 and 'a/0.png occurs twice' in text
    code, text = run_tool(*arguments, '--shard-names')
    assert code == 0 and '3 images, 2 with a class' in text
    monkeypatch.setattr('mmunimoco.datasets.storage._MAX_OPEN', 1)
    dataset = from_tars(out, classes=[str(i) for i in range(8)])
    assert [dataset.get_data_info(i)['gt_label'] for i in range(3)] == [
        7,
        -1,
        2,
    ]
    names = ['x-0/a/0.png', 'x-0/a/1.png', 'x-1/a/0.png']
    backend = TarBackend(str(out))
    for name, path in zip(names * 2, images * 2, strict=True):
        assert backend.get(name) == path.read_bytes()
    source = dict(backend='tar', index=str(out))
    cached = CachedBackend(str(tmp_path / 'cache'), 0, source)
    for _ in range(2):
        assert cached.get(names[2]) == images[2].read_bytes()
    # Without any class file, images side by side have no class.
    tar = write_tar(tmp_path / 'y.tar', {'0.png': images[0]}, folder)
    _, labeled, _ = index_tars(str(tmp_path / 'y.idx'), [str(tar)])
    assert labeled == 0


@pytest.mark.parametrize('prefix', [False, True])
def test_folders_in_all_tars_are_the_classes(folder, tmp_path, prefix):
    """Names may begin with those of the tars; unlabeled images have none."""
    image = next(folder.rglob('*.png'))
    tars = []
    for number in range(2):
        members = {
            f'{name}/{number}.png': image
            for name in ('Unlabeled', 'cat', 'dog')
        }
        tars.append(write_tar(tmp_path / f'{number}.tar', members, folder))
    out = tmp_path / 'x.idx'
    index_tars(str(out), [str(tar) for tar in tars], prefix)
    lines = Path(f'{out}.txt').read_text().splitlines()
    found = [line.rpartition(' ')[::2] for line in lines]
    assert [label for _, label in found] == ['-1', '0', '1'] * 2
    assert found[3][0] == ('1/' if prefix else '') + 'Unlabeled/1.png'
    flat = [
        str(write_tar(tmp_path / f'flat{i}.tar', {f'{i}.png': image}, folder))
        for i in range(2)
    ]
    assert index_tars(str(out), flat, prefix)[1] == 0


def test_index_stays_if_the_disk_is_full(folder, tmp_path, request):
    image = next(folder.rglob('*.png'))
    out = tmp_path / 'x.idx'
    tar = str(write_tar(tmp_path / 'x.tar', {'0.png': image}, folder))
    index_tars(str(out), [tar])
    before = out.read_bytes()
    write_tar(tmp_path / 'x.tar', {'1.png': image}, folder)
    request.getfixturevalue('full_disk')
    with pytest.raises(OSError, match='No space left'):
        index_tars(str(out), [tar])
    assert out.read_bytes() == before


def test_tars_that_cannot_be_indexed_or_have_changed(folder, tmp_path):
    image = next(folder.rglob('*.png'))
    out = str(tmp_path / 'x.idx')
    tar = write_tar(tmp_path / 'x.tar', {'0.cls': b'dog'}, folder)
    with pytest.raises(ValueError, match=r"0\.cls in .*x\.tar holds b'dog'"):
        index_tars(out, [str(tar)])
    for name in (' 0.png', 'a\n0.png', 'a\udcff.png'):
        tar = write_tar(tmp_path / 'x.tar', {name: image}, folder)
        with pytest.raises(ValueError, match=r'in .*x\.tar begins with a bla'):
            index_tars(out, [str(tar)])
    tar = write_tar(tmp_path / 'x.tar', {'0.txt': b''}, folder)
    with pytest.raises(ValueError, match='no images in 1 tar files'):
        index_tars(out, [str(tar)])
    with pytest.raises(ValueError, match='damaged or not a tar file'):
        index_tars(out, [str(image)])
    tar = write_tar(tmp_path / 'x.tar', {'0.png': image}, folder)
    index_tars(out, [str(tar)])
    with open(tar, 'ab') as file:
        file.write(b'more')
    with pytest.raises(ValueError, match=r'x\.tar has changed'):
        TarBackend(out).get('0.png')
