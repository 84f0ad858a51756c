"""Label lists: reading, matching, writing, and lists that do not fit."""

from pathlib import Path

import pytest
from mmengine.dataset import ConcatDataset
from mmpretrain.datasets import CustomDataset, ImageNet
from toy_dataset import toy

from mmunimoco.datasets import PartialLabels
from mmunimoco.datasets.label_lists import (
    make_label_list,
    read_label_list,
    write_label_list,
)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def folder_of(root, *files):
    """A dataset of empty files; only their names are read."""
    for file in files:
        put(root / file, b'')
    return CustomDataset(data_prefix=str(root))


@pytest.fixture
def pets(tmp_path):
    return folder_of(
        tmp_path / 'pets',
        *('cat/a.png', 'cat/b.png', 'cat/1.png'),
        *('dog/c.png', 'dog/1.png', 'dog/deep/cat/1.png'),
    )


def kept(dataset, path, **kwargs):
    """From relative path to label of the images that stay labeled."""
    partial = PartialLabels(dataset, label_list=path, **kwargs)
    infos = [partial.get_data_info(i) for i in range(len(partial))]
    return {
        info['img_path'].partition('/pets/')[2]: info['gt_label']
        for info in infos
        if 'gt_label' in info
    }


@pytest.mark.parametrize(
    'content',
    [
        'c.png\na.png\n',
        'c.png\r\na.png\r\n',
        b'\xef\xbb\xbfc.png\na.png',
        '\n\n  c.png \n\t\r\na.png\n\n\n',
        './cat/a.png\ndog\\c.png\n',
        'pets/cat/a.png\ndog/../dog/c.png\n',
    ],
    ids=['plain', 'crlf', 'bom', 'blanks', 'folders', 'suffix'],
)
def test_accepted_formats(pets, tmp_path, content):
    path = put(tmp_path / 'list.txt', content)
    assert kept(pets, path) == {'cat/a.png': 0, 'dog/c.png': 1}


def test_paths_distinguish_equal_file_names(pets, tmp_path):
    path = put(tmp_path / 'list.txt', 'dog/1.png\ncat/1.png\n')
    assert kept(pets, path) == {'cat/1.png': 0, 'dog/1.png': 1}
    path = put(tmp_path / 'list.txt', 'deep/cat/1.png\n')
    assert kept(pets, path) == {'dog/deep/cat/1.png': 1}
    whole = str(tmp_path / 'pets' / 'dog' / 'deep' / 'cat' / '1.png')
    path = put(tmp_path / 'list.txt', whole)
    assert kept(pets, path) == {'dog/deep/cat/1.png': 1}


def test_full_paths_name_images_of_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = folder_of(Path('pets'), 'cat/a.png', 'dog/a.png')
    path = put(tmp_path / 'list.txt', str(tmp_path / 'pets/dog/a.png'))
    partial = PartialLabels(dataset, label_list=path)
    assert partial.get_gt_labels().tolist() == [-1, 1]


def test_home_folder_and_path_object(pets, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    put(tmp_path / 'list.txt', 'a.png\n')
    assert kept(pets, '~/list.txt') == {'cat/a.png': 0}
    assert kept(pets, tmp_path / 'list.txt')


@pytest.mark.parametrize(
    'content, parts',
    [
        ('', ['names no image', 'label_ratio=0.0']),
        (' \r\n\n', ['names no image']),
        (b'\xef\xbb\xbf', ['names no image']),
        (b'\x89PNG\r\n\x1a\n\xff\xd8', ['is not UTF-8 text']),
        ('a.png\nb.png\na.png\n', ["names 'a.png' more than once"]),
        ('a.png\n./cat/a.png\n', ['cat/a.png', 'the second time as']),
        (
            'a.png\nz.png\ncow/a.png\n',
            ["2 of 3 images.*not in the dataset: 'z.png', 'cow/a.png'"],
        ),
        (
            ''.join(f'{i}.jpg\n' for i in range(10)),
            ["10 of 10 images.*'0.jpg', '1.jpg', '2.jpg' and 7 more"],
        ),
        (
            'a.png\n1.png\n',
            [
                "names '1.png', but there is more than one",
                'cat/1.png',
                'dog/1.png',
                'write the path',
            ],
        ),
        ('/somewhere/cat/a.png\n', ["'/somewhere/cat/a.png'"]),
    ],
)
def test_lists_that_do_not_fit(pets, tmp_path, content, parts):
    path = put(tmp_path / 'list.txt', content)
    for part in ['list.txt', *parts]:
        with pytest.raises(ValueError, match=f'(?s){part}'):
            PartialLabels(pets, label_list=path)


def test_missing_lists(pets, tmp_path):
    with pytest.raises(FileNotFoundError, match='10percnt.txt'):
        PartialLabels(pets, label_list=str(tmp_path / '10percnt.txt'))
    with pytest.raises(FileNotFoundError, match='is not a file'):
        PartialLabels(pets, label_list=str(tmp_path))


def test_listed_images_need_a_label(pets, tmp_path):
    more = folder_of(tmp_path / 'web', 'x/new.png')
    web = CustomDataset(data_prefix=str(tmp_path / 'web'), with_label=False)
    both = ConcatDataset([pets, web], ignore_keys='classes')
    path = put(tmp_path / 'list.txt', 'a.png\nnew.png\n')
    with pytest.raises(ValueError, match=r"(?s)1 of 2.*no label.*new.png'"):
        PartialLabels(both, label_list=path)
    # A name in two datasets is as ambiguous as twice in one.
    twice = ConcatDataset([more, more.get_subset([0])])
    with pytest.raises(ValueError, match='more than one in the dataset'):
        PartialLabels(twice, label_list=put(tmp_path / 'list.txt', 'new.png'))


def test_imagenet_layouts(imagenet_folder, tmp_path):
    """SimCLR's format, with class folders and with an annotation file."""
    path = put(tmp_path / 'list.txt', 'n01440764_7.JPEG\nn01491361_0.JPEG\n')
    ann_file = put(
        tmp_path / 'train.txt',
        ''.join(
            f'{p.relative_to(imagenet_folder)} {label}\n'
            for label, folder in enumerate(sorted(imagenet_folder.iterdir()))
            for p in sorted(folder.iterdir())
        ),
    )
    classes = sorted(p.name for p in imagenet_folder.iterdir())
    for kwargs in (dict(), dict(ann_file=ann_file)):
        dataset = ImageNet(
            data_root=str(imagenet_folder.parent),
            split='train',
            classes=classes,
            **kwargs,
        )
        truth = PartialLabels(dataset, label_list=path).get_gt_labels()
        assert sorted(truth[truth >= 0]) == [0, 3]


@pytest.mark.parametrize(('ratio', 'seed'), [(0.1, 0), (0.5, 5), (1.0, 0)])
def test_written_list_equals_the_selection_by_ratio(
    pets, imagenet_folder, tmp_path, ratio, seed
):
    datasets = [
        pets,
        CustomDataset(data_prefix=str(imagenet_folder)),
        toy([i % 7 for i in range(100)]),
    ]
    for dataset in datasets:
        path = tmp_path / 'new' / f'{type(dataset).__name__}.txt'
        names = make_label_list(dataset, ratio, seed)
        write_label_list(path, names, force=True)
        assert read_label_list(path) == names
        assert b'\r' not in path.read_bytes()
        by_list = PartialLabels(dataset, label_list=str(path))
        by_ratio = PartialLabels(dataset, label_ratio=ratio, seed=seed)
        assert (by_list.get_gt_labels() == by_ratio.get_gt_labels()).all()
    assert all('/' not in name for name in names)


def test_names_are_as_short_as_possible(pets):
    assert make_label_list(pets, 1.0) == [
        *('cat/1.png', 'a.png', 'b.png'),
        *('dog/1.png', 'c.png', 'dog/deep/cat/1.png'),
    ]


def test_files_beside_the_class_folders(tmp_path):
    put(tmp_path / 'x' / '1.png', b'')
    put(tmp_path / '1.png', b'')
    ann_file = put(tmp_path / 'ann.txt', 'x/1.png 0\n1.png 1\n')
    dataset = CustomDataset(data_prefix=str(tmp_path), ann_file=ann_file)
    names = make_label_list(dataset, 1.0)
    assert names == ['x/1.png', './1.png']
    path = put(tmp_path / 'list.txt', './1.png\n')
    partial = PartialLabels(dataset, label_list=path)
    assert partial.get_gt_labels().tolist() == [-1, 1]


def test_list_is_written_whole_or_not(tmp_path, full_disk):
    path = put(tmp_path / 'list.txt', 'a.png\n')
    with pytest.raises(OSError, match='No space left'):
        write_label_list(path, ['b.png'], force=True)
    assert (tmp_path / 'list.txt').read_text() == 'a.png\n'


def test_lists_that_cannot_be_written(pets, tmp_path):
    path = tmp_path / 'list.txt'
    write_label_list(path, ['a.png'])
    with pytest.raises(FileExistsError, match='list.txt'):
        write_label_list(path, ['b.png'])
    assert path.read_text() == 'a.png\n'
    with pytest.raises(ValueError, match='nothing to list'):
        write_label_list(tmp_path / 'none.txt', [])
    with pytest.raises(ValueError, match='empty'):
        write_label_list('', ['a.png'])
    with pytest.raises(ValueError, match=r"' b\.png' in the dataset begins"):
        write_label_list(tmp_path / 'none.txt', ['a.png', ' b.png'])
    assert not (tmp_path / 'none.txt').exists()
    twins = ConcatDataset([pets, CustomDataset(data_prefix=pets.img_prefix)])
    with pytest.raises(ValueError, match='more than once; a list'):
        make_label_list(twins, 1.0)
