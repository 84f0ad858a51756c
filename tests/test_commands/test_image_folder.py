"""What is found in folders of all shapes."""

import os

import pytest
from image_folders import write_image_folder
from PIL import Image

from mmunimoco.commands import image_folder
from mmunimoco.commands.image_folder import (
    find_splits,
    hold_out,
    is_split,
    keep_labels,
    read_folder,
)


@pytest.fixture
def mixed(tmp_path):
    """Classes, unlabeled images at two places, and what is no image."""
    root = write_image_folder(tmp_path / 'mixed', classes=2, per_class=4)
    image = Image.open(root / 'class_0/0.png')
    (root / 'unlabeled/more').mkdir(parents=True)
    image.save(root / 'unlabeled/more/ä b.webp')
    image.resize((90, 50)).save(root / 'top.JPG')
    (root / 'class_0/deeper').mkdir()
    image.save(root / 'class_0/deeper/x.bmp')
    (root / 'class_1/broken.jpg').write_text('no image')
    (root / 'notes.txt').write_text('')
    (root / '.hidden').mkdir()
    image.save(root / '.hidden/y.png')
    return root


def labels_of(folder):
    return dict(zip(folder.names, folder.labels, strict=True))


def test_classes_are_the_first_folders(mixed):
    found = read_folder(mixed)
    assert found.classes == ('class_0', 'class_1')
    assert labels_of(found) == {
        **{f'class_{c}/{i}.png': c for c in (0, 1) for i in range(4)},
        'class_0/deeper/x.bmp': 0,
        'top.JPG': -1,
        'unlabeled/more/ä b.webp': -1,
    }
    assert found.unreadable == ['class_1/broken.jpg']
    assert found.others == {'.txt': 1}
    assert found.num_labeled == 9 and found.side == 32


def test_images_that_do_not_decode_are_left_out(mixed):
    content = (mixed / 'class_0/0.png').read_bytes()
    (mixed / 'class_0/truncated.png').write_bytes(content[:-200])
    (mixed / 'class_0/gone.png').symlink_to('nowhere.png')
    # OpenCV has no floats in TIFF.
    floats = Image.new('F', (4, 4))
    floats.save(mixed / 'class_0/floats.tif')
    found = read_folder(mixed)
    assert found.unreadable == [
        *(f'class_0/{x}' for x in ('floats.tif', 'gone.png', 'truncated.png')),
        'class_1/broken.jpg',
    ]


@pytest.mark.parametrize(
    ('count', 'found'), [(4, ['3.png']), (7, ['6.png']), (8, [])]
)
def test_of_many_images_every_nth_is_decoded(
    tmp_path, monkeypatch, count, found
):
    """The last one is broken."""
    monkeypatch.setattr(image_folder, '_MAX_DECODED', 4)
    for index in range(count):
        Image.new('RGB', (8, 8)).save(tmp_path / f'{index}.png')
    (tmp_path / f'{count - 1}.png').write_text('')
    assert read_folder(tmp_path).unreadable == found


@pytest.mark.parametrize(
    ('name', 'mode', 'size'),
    [
        ('deep.png', 'I;16', (40, 32)),
        ('alpha.PNG', 'RGBA', (40, 32)),
        ('bits.png', '1', (40, 32)),
        ('palette.png', 'P', (40, 32)),
        ('ink.jpg', 'CMYK', (40, 32)),
        ('wide.jpeg', 'RGB', (3000, 2)),
        ('one.webp', 'RGB', (1, 1)),
    ],
)
def test_kinds_of_images(tmp_path, name, mode, size):
    Image.new(mode, size).save(tmp_path / name)
    found = read_folder(tmp_path)
    assert (found.names, found.side) == ([name], min(size))


def test_links_to_folders(tmp_path):
    """Followed, but not upwards."""
    root = write_image_folder(tmp_path / 'root', classes=1, per_class=2)
    other = write_image_folder(tmp_path / 'other', classes=1, per_class=3)
    (root / 'class_0/up').symlink_to('..')
    (root / 'class_0/here').symlink_to('.')
    (root / 'linked').symlink_to(other / 'class_0')
    found = read_folder(root)
    assert len(found) == 5 and found.classes == ('class_0', 'linked')
    assert not found.others


def test_images_in_a_flat_folder_have_no_label(tmp_path):
    flat = write_image_folder(tmp_path, classes=1, per_class=3) / 'class_0'
    found = read_folder(flat)
    assert found.labels == [-1] * 3 and found.classes == ()


def test_train_and_val_are_not_classes(tmp_path):
    for name in ('Train', 'validation'):
        write_image_folder(tmp_path / name)
    assert find_splits(tmp_path) == (
        tmp_path / 'Train',
        tmp_path / 'validation',
    )
    assert find_splits(tmp_path / 'Train') == (tmp_path / 'Train', None)


def test_train_may_be_a_class(tmp_path):
    for name in ('car', 'train'):
        (tmp_path / name).mkdir()
    assert find_splits(tmp_path) == (tmp_path, None)
    # Not if it has classes, or val is there.
    (tmp_path / 'train/bus').mkdir()
    assert find_splits(tmp_path) == (tmp_path / 'train', None)
    (tmp_path / 'val').mkdir()
    assert find_splits(tmp_path)[1] == tmp_path / 'val'


@pytest.mark.parametrize(
    'name', [' a/0.png', ' 0.png', 'a/0\n.png', os.fsdecode(b'\xff.png')]
)
def test_names_that_no_list_can_have_are_refused(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    Image.new('RGB', (8, 8)).save(tmp_path / 'x.png')
    (tmp_path / 'x.png').rename(path)
    with pytest.raises(ValueError, match='rename it'):
        read_folder(tmp_path)


@pytest.mark.parametrize('start', ['{root}', './{root.name}', '{root.name}'])
def test_lists_may_have_the_path_of_the_folder(mixed, tmp_path, start):
    whole = read_folder(mixed)
    name, path = 'class_1/2.png', tmp_path / 'list.txt'
    path.write_text(f'{start.format(root=mixed)}/{name}\n')
    kept = keep_labels(whole, path)
    assert kept.num_labeled == 1
    assert kept.labels[kept.names.index(name)] == 1


def test_a_folder_that_cannot_be_read_is_named(mixed, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith('class_1'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scan(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(PermissionError, match='class_1'):
        read_folder(mixed)


def test_a_folder_without_images_says_what_is_in_it(tmp_path):
    (tmp_path / 'a.gif').write_text('')
    (tmp_path / 'b.png').write_text('')
    with pytest.raises(ValueError, match=r'1 \.gif; 1 unreadable'):
        read_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        find_splits(tmp_path / 'c')
    for read in (find_splits, read_folder):
        with pytest.raises(NotADirectoryError, match='png is not a folder'):
            read(tmp_path / 'b.png')


def test_a_list_of_names_keeps_labels_of_folders(mixed, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_text('./class_1/2.png\r\n\nx.bmp\n', encoding='utf-8-sig')
    kept = labels_of(keep_labels(read_folder(mixed), path))
    assert {k: v for k, v in kept.items() if v != -1} == {
        'class_1/2.png': 1,
        'class_0/deeper/x.bmp': 0,
    }


@pytest.mark.parametrize('separator', [',', '\t', ' ', ', '])
def test_a_list_with_classes_gives_labels(mixed, tmp_path, separator):
    path = tmp_path / 'list.csv'
    lines = {'top.JPG': 'cat', 'ä b.webp': 'dog', 'class_1/0.png': 'cat'}
    path.write_text(
        ''.join(f'{k}{separator}{v}\n' for k, v in lines.items()),
        encoding='utf-8',
    )
    found = keep_labels(read_folder(mixed), path)
    kept = labels_of(found)
    assert found.classes == ('cat', 'dog')
    assert {k: v for k, v in kept.items() if v != -1} == {
        'top.JPG': 0,
        'unlabeled/more/ä b.webp': 1,
        'class_1/0.png': 0,
    }


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('', 'names no image$'),
        ('x.bmp\nx.bmp', 'more than once'),
        ('nothing.png', "'nothing.png' is no image .* a name and a class"),
        ('0.png', "'0.png' is in several folders"),
        ('x.bmp\nclass_0/deeper/x.bmp', 'there twice'),
        ('top.JPG', "'top.JPG' is in no class folder"),
        ('x.bmp\ntop.JPG,cat', 'some have none'),
        ('x.bmp,cat\ntop.JPG,', "class behind 'top.JPG' is empty"),
    ],
)
def test_lists_that_do_not_fit(mixed, tmp_path, text, fault):
    path = tmp_path / 'list.txt'
    path.write_text(text)
    with pytest.raises(ValueError, match=fault):
        keep_labels(read_folder(mixed), path)


def test_minus_one_in_a_list_is_no_class(mixed, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_text('top.JPG 1\nx.bmp -1\nclass_1/0.png 0\n')
    found = keep_labels(read_folder(mixed), path)
    kept = labels_of(found)
    assert found.classes == ('0', '1') and found.num_labeled == 2
    assert kept['top.JPG'] == 1 and kept['class_0/deeper/x.bmp'] == -1


def test_classes_below_train_and_val(tmp_path):
    root = tmp_path / 'all'
    write_image_folder(root / 'Train', classes=2, per_class=1)
    write_image_folder(root / 'val/unlabeled', classes=1, per_class=1)
    write_image_folder(root / 'val', classes=1, per_class=1)
    write_image_folder(root / 'more', classes=1, per_class=1)
    assert is_split(root) and not is_split(root / 'Train')
    found = read_folder(root, split=True)
    assert found.classes == ('class_0', 'class_1')
    assert labels_of(found) == {
        'Train/class_0/0.png': 0,
        'Train/class_1/0.png': 1,
        'val/class_0/0.png': 0,
        'val/unlabeled/class_0/0.png': -1,
        'more/class_0/0.png': -1,
    }


def test_held_out_images_are_a_share_of_each_class(tmp_path):
    root = write_image_folder(tmp_path, classes=2, per_class=20)
    for index in range(2, 20):
        os.remove(root / f'class_1/{index}.png')
    folder = read_folder(root)
    rest, taken = hold_out(folder, 0.25)
    assert taken.labels == [0] * 5  # of two images none is taken
    assert sorted(rest.names + taken.names) == folder.names
    assert hold_out(folder, 0.25)[1].names == taken.names
    assert hold_out(folder, 0.25, seed=1)[1].names != taken.names
    assert len(hold_out(folder, 0.0)[1]) == 0
    assert len(hold_out(folder, 0.01)[1]) == 1  # at least
