"""What class ids mean, compared by the names of the classes."""

import pytest
from image_folders import write_image_folder
from mmpretrain.datasets import CIFAR10, CustomDataset
from mmpretrain.registry import DATASETS
from toy_dataset import Toy, toy

from mmunimoco.datasets import PartialLabels
from mmunimoco.datasets.class_names import check_classes_agree


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a folder and reads it."""

    def make(name, *classes, empty=(), **options):
        root = write_image_folder(tmp_path / name, len(classes), 2, size=4)
        for old, new in zip(sorted(root.iterdir()), classes, strict=True):
            old.rename(root / new)
        for each in empty:
            (root / each).mkdir()
        return CustomDataset(data_prefix=str(root), pipeline=[], **options)

    return make


def test_missing_folder_shifts_ids_and_is_refused(folder):
    train = folder('train', 'ant', 'bee', 'cat')
    val = folder('val', 'ant', 'cat')
    with pytest.raises(ValueError, match='whatever classes') as error:
        check_classes_agree({'bank': train, 'val': val})
    text = str(error.value)
    assert "class 1 is 'bee' in bank and 'cat' in val" in text
    assert 'bank has 3 classes: 0=ant, 1=bee, 2=cat\n' in text
    assert 'val has 2 classes: 0=ant, 1=cat\n' in text


def test_advice_of_the_error_gives_the_right_ids(folder, tmp_path):
    train = folder('train', 'ant', 'bee', 'cat')
    with_empty = folder('val', 'ant', 'cat', empty=['bee'])
    (tmp_path / 'val.txt').write_text('cat/0.png 2\nant/0.png 0\n')
    listed = CustomDataset(
        data_prefix=str(tmp_path / 'val'),
        ann_file=str(tmp_path / 'val.txt'),
        classes=['ant', 'bee', 'cat'],
        pipeline=[],
    )
    check_classes_agree({'train': train, 'val': with_empty, 'test': listed})
    ids = {i['gt_label'] for i in map(with_empty.get_data_info, range(4))}
    assert ids == {0, 2}


def test_names_in_another_order_than_folders_are_refused(folder):
    wrong = folder('a', 'ant', 'bee', classes=['bee', 'ant'])
    with pytest.raises(ValueError, match='folders 0=ant, 1=bee, but classes'):
        check_classes_agree({'train': wrong})
    # Names for display are no other order.
    shown = folder('b', 'ant', 'bee', classes=['Ameise', 'Biene'])
    plain = folder('c', 'ant', 'bee')
    check_classes_agree({'train': shown, 'val': plain})


def test_same_built_in_classes_unknown_classes_and_none_pass(folder):
    cifar = [
        toy([0], metainfo=dict(classes=kind(CIFAR10.METAINFO['classes'])))
        for kind in (list, tuple)
    ]
    check_classes_agree({'train': cifar[0], 'val': cifar[1]})
    unlabeled = folder('u', 'x', 'y', with_label=False)
    hidden = toy([None, -1], metainfo=dict(classes=['zebra']))
    check_classes_agree({'train': cifar[0], 'a': unlabeled, 'b': hidden})
    check_classes_agree({'train': cifar[0], 'val': toy([5]), 'x': [0.5][:0]})


def test_a_class_more_at_the_end_is_a_warning(log):
    one = toy([0], metainfo=dict(classes='ab'))
    two = toy([0], metainfo=dict(classes='abc'))
    check_classes_agree({'bank': one, 'val': two})
    assert 'val has 1 classes that bank does not have: c.' in log.text


@pytest.mark.parametrize(
    'infos', [dict(instances=[dict(bbox_label=0)]), dict(seg_map_path='a')]
)
def test_other_kinds_of_labels_count(infos):
    one = Toy([infos], metainfo=dict(classes='ab'))
    other = Toy([infos], metainfo=dict(classes='ba'))
    with pytest.raises(ValueError, match="class 0 is 'a' in train and 'b'"):
        check_classes_agree({'train': one, 'val': other})


# Merged datasets.


def merged(*labeled_classes, ratio=1.0):
    parts = [
        dict(type=Toy, infos=[dict(gt_label=g)], metainfo=dict(classes=c))
        for g, c in labeled_classes
    ]
    concat = dict(
        type='ConcatDataset', ignore_keys=['classes'], datasets=parts
    )
    for part in parts:
        part['infos'][0]['img_path'] = f'{part["metainfo"]["classes"]}.png'
    return concat if ratio is None else PartialLabels(concat, ratio)


def test_merged_parts_with_other_classes_are_refused():
    ant, cat = ['ant', 'bee', 'cat'], ['cat', 'dog', 'eel']
    message = "class 0 is 'ant' in the dataset and 'cat' in the dataset too"
    with pytest.raises(ValueError, match=message):
        merged((0, ant), (0, cat))
    with pytest.raises(ValueError, match=message):  # without PartialLabels
        concat = DATASETS.build(merged((0, ant), (0, cat), ratio=None))
        check_classes_agree({'the dataset': concat})
    merged((0, ant), (2, ant))
    merged((0, ant), (None, cat))
    merged((0, ant), (0, cat), ratio=0.0)  # no label is used
