"""What is said about the files that a folder dataset leaves out."""

import pytest
from mmpretrain.datasets import CustomDataset
from toy_dataset import toy

from mmunimoco.datasets.folder_report import describe_folder


class BuiltIn(CustomDataset):
    """As ImageNet, which is large and whose layout is known."""

    METAINFO = dict(classes=('a', 'b'))


@pytest.fixture
def describe(tmp_path):
    """Return a function that writes empty files and describes the folder."""

    def run(*names, kind=CustomDataset, **options):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        root = str(tmp_path)
        return describe_folder(kind(data_root=root, pipeline=[], **options))

    return run


TOP = [f'{i}.jpg' for i in range(400)] + [f'phone/{i}.png' for i in range(200)]


def test_unlabeled_folder_read_as_labeled(describe):
    text = describe(*TOP)
    assert '600 files found, 200 used (200 .png), 400 skipped' in text
    assert '(400 .jpg outside of class folders)' in text
    assert "only class is 'phone'" in text and 'with_label=False' in text
    assert describe(with_label=False) is None


def test_images_of_other_extensions_are_counted(describe):
    text = describe('a/1.JPG', 'b/2.png', 'a/3.webp', 'b/c/4.heic', 'b/n.txt')
    assert '5 files found, 2 used (1 .jpg, 1 .png), 3 skipped' in text
    assert '1 .webp' in text and '1 .heic' in text and '1 .txt' in text
    assert 'Convert .heic' in text
    extensions = text.partition('extensions=')[2].partition(').')[0] + ')'
    text = describe(extensions=eval(extensions))
    assert '3 used' in text and 'extensions=' not in text


@pytest.mark.parametrize('folder', ['train', 'val', '.ipynb_checkpoints'])
def test_folders_that_are_no_classes(describe, folder):
    text = describe('cat/1.jpg', f'{folder}/2.jpg')
    assert f'The folders {folder} count as classes' in text


def test_unlabeled_is_no_class(describe):
    text = describe('cat/1.jpg', 'dog/2.jpg', 'Unlabeled/3.jpg')
    assert 'The folder Unlabeled counts as a class: move it out' in text


def test_nothing_to_say(describe, tmp_path):
    assert describe('a/1.jpg', 'b/2.jpg', 'b/notes.txt', '.hidden.jpg') is None
    (tmp_path / 'list.txt').write_text('a/1.jpg 0\n')
    (tmp_path / '3.jpg').touch()
    assert 'outside' in describe()
    assert describe(ann_file='list.txt') is None
    assert describe(kind=BuiltIn) is None
    assert describe_folder(toy([0])) is None  # reads no folder
