"""The command line that writes label lists."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from image_folders import write_image_folder
from mmpretrain.datasets import CustomDataset

from demo import DATA_FILE
from mmunimoco.datasets import NpzImages, PartialLabels
from mmunimoco.datasets.label_lists import read_label_list

TOOL = (
    Path(__file__).parents[2] / 'tools/dataset_converters/make_label_list.py'
)


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('make_label_list', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONFIG = f"""
train = dict(type='NpzImages', ann_file={DATA_FILE!r}, split='train')
test = dict(type='NpzImages', ann_file={DATA_FILE!r}, split='test')
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmunimoco'], allow_failed_imports=False)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        type='PartialLabels',
        label_ratio=0.01,
        dataset=train))
val_dataloader = dict(dataset=dict(
    type='LabeledSubset',
    dataset=dict(type='mmpretrain.PartialLabels', label_ratio=0.5,
                 dataset=test)))
few = dict(type='PartialLabels', label_ratio=0.1, dataset=test)
repeated = dict(type='RepeatLabeled', times=5, dataset=few)
balanced = dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=few)
joined = dict(type='ConcatDataset', datasets=[few])
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    return str(path)


@pytest.mark.parametrize(
    'key, split, options, count',
    [
        ([], 'train', {}, 600),
        (['--dataset', 'val_dataloader.dataset'], 'test', {}, 200),
        (['--dataset', 'repeated'], 'test', {}, 200),
        (['--dataset', 'balanced'], 'test', {}, 200),
        (['--dataset', 'joined'], 'test', {}, 200),
        (
            [
                '--cfg-options',
                'train_dataloader.dataset.dataset.indices=500',
            ],
            'train',
            dict(indices=500),
            50,
        ),
    ],
)
def test_from_config(
    tool, config, tmp_path, capsys, key, split, options, count
):
    out = tmp_path / 'lists' / '10pct.txt'
    args = ['--config', config, '--ratio', '0.1', '--seed', '3']
    assert tool.main([*args, '--out', str(out), *key]) == 0
    said = capsys.readouterr().out
    assert f'10pct.txt: {count} of {10 * count} ' in said and 'seed 3' in said
    assert len(read_label_list(out)) == count
    dataset = NpzImages(DATA_FILE, split, **options)
    by_list = PartialLabels(dataset, label_list=str(out)).get_gt_labels()
    by_ratio = PartialLabels(dataset, label_ratio=0.1, seed=3).get_gt_labels()
    assert (by_list == by_ratio).all()


def test_from_folder(tool, tmp_path, capsys):
    folder = write_image_folder(tmp_path / 'images', per_class=6)
    out = tmp_path / 'half.txt'
    args = ['--folder', str(folder), '--ratio', '0.5', '--out', str(out)]
    assert tool.main(args) == 0
    text = capsys.readouterr().out
    assert f'{out}: 9 of 18 images (ratio 0.5, seed 0)' in text
    dataset = CustomDataset(data_prefix=str(folder))
    by_list = PartialLabels(dataset, label_list=str(out)).get_gt_labels()
    by_ratio = PartialLabels(dataset, label_ratio=0.5).get_gt_labels()
    assert (by_list == by_ratio).all() and (by_list >= 0).sum() == 9
    # A folder of unlabeled images is no class.
    shutil.copytree(folder / 'class_1', folder / 'Unlabeled')
    args[-1] = str(tmp_path / 'more.txt')
    assert tool.main(args) == 0
    assert '9 of 24 images' in capsys.readouterr().out
    assert not any('Unlabeled' in name for name in read_label_list(args[-1]))


def test_does_not_overwrite(tool, config, tmp_path, capsys):
    out = tmp_path / 'list.txt'
    out.write_text('precious\n')
    args = ['--config', config, '--ratio', '0.1', '--out', str(out)]
    assert tool.main(args) == 1
    said = capsys.readouterr().err
    assert 'list.txt' in said and '--force' in said
    assert out.read_text() == 'precious\n'
    assert tool.main([*args, '--force']) == 0
    assert len(read_label_list(out)) == 600
    args[-1] = str(out / 'list.txt')
    assert tool.main(args) == 1
    assert f'{out} is a file, not a folder\n' in capsys.readouterr().err


@pytest.mark.parametrize(
    'args, message',
    [
        (['--folder', 'nowhere', '--ratio', '0.1'], "'nowhere' is not a fol"),
        (['--folder', 'flat', '--ratio', '0.1'], 'no sub-folders'),
        (['--folder', 'hollow', '--ratio', '0.1'], 'Found 0 files'),
        (['--config', 'no.py', '--ratio', '0.1'], "'no.py' is not a file"),
        (['--folder', 'flat', '--ratio', '10'], 'in [0, 1], got 10'),
        (['--config', 'config.py', '--ratio', '0'], 'nothing to list'),
        (
            [
                *('--config', 'config.py', '--ratio', '0.1'),
                *('--dataset', 'train_dataloader.batch_size'),
            ],
            "no dataset at 'train_dataloader.batch_size'",
        ),
        (
            [
                *('--config', 'config.py', '--ratio', '0.1', '--cfg-options'),
                'train_dataloader.dataset.dataset.type=DemoFashion',
            ],
            "'train_dataloader.dataset' in 'config.py': DemoFashion is not in",
        ),
        (
            [
                *('--config', 'hollow.py', '--ratio', '0.1'),
                *('--dataset', 'dataset'),
            ],
            "'dataset' in 'hollow.py': Found 0 files",
        ),
    ],
)
def test_errors_in_one_line(
    tool, config, tmp_path, capsys, monkeypatch, args, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'flat').mkdir()
    (tmp_path / 'flat' / 'a.png').touch()
    (tmp_path / 'hollow' / 'cat').mkdir(parents=True)
    (tmp_path / 'hollow.py').write_text(
        "dataset = dict(type='CustomDataset', data_prefix='hollow')\n"
    )
    assert tool.main([*args, '--out', 'list.txt']) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'list.txt').exists()
