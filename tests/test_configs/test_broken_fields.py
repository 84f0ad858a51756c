"""A wrong field of a config is named in one line, before training starts."""

import re
import runpy
import sys
from pathlib import Path

import mmpretrain
import pytest
from image_folders import FEATURES, NARROW_RESNET, write_image_folder

from mmunimoco.models import UniMoCo

ROOT = Path(__file__).parents[2]
OURS = ROOT / 'tools/train.py'
THEIRS = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'
# Twelve images of three classes, kNN, and the shipped runtime.
CONFIG = """
_base_ = [{runtime!r}]
model = dict(
    type='UniMoCo',
    backbone={backbone!r},
    neck=dict(type='MoCoV2Neck', in_channels={features},
              hid_channels=16, out_channels=8),
    head=dict(type='UniMoCoHead', feat_dim=8, queue_len=12,
              loss=dict(type='UniConLoss')))
data_preprocessor = dict(type='SelfSupDataPreprocessor')
load = dict(type='LoadImageFromFile')
pack = dict(type='PackInputs')
view = [dict(type='RandomResizedCrop', scale=32)]
loader = dict(batch_size=4, num_workers=0,
              collate_fn=dict(type='default_collate'),
              sampler=dict(type='DefaultSampler', shuffle=False))
train_dataloader = dict(loader, drop_last=True, dataset=dict(
    type='PartialLabels', label_ratio=1.0, label_list=None, dataset=dict(
        type='CustomDataset', data_root='train', pipeline=[
            load, dict(type='MultiView', num_views=2, transforms=[view]),
            pack])))
bank = dict(loader, dataset=dict(
    type='CustomDataset', data_root='train', pipeline=[load, pack]))
val_dataloader = dict(loader, dataset=dict(
    type='CustomDataset', data_root='train', pipeline=[load, pack]))
val_cfg = dict(type='KNNValLoop', bank_dataloader=bank, k=5)
val_evaluator = dict(type='Accuracy', topk=(1, 2), prefix='knn')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.03, momentum=0.9))
train_cfg = dict(type='ExactEpochLoop', max_epochs=1, val_interval=1)
"""
DATA = 'train_dataloader.dataset'
LISTS = {
    # As editors on Windows write them: BOM, CRLF, blank lines, backslashes.
    'windows.txt': b'\xef\xbb\xbfclass_0/0.png\r\n\r\n \r\nclass_1\\1.png\r\n',
    'path.txt': b'train/class_2/3.png\n',
    'empty.txt': b'\r\n\n',
    'binary.txt': b'\xff\xfe\x00\x80',
    'unknown.txt': b'class_0/0.png\nnope.png\n',
}


class Started(Exception):
    """Raised by the first step of training."""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('broken')
    write_image_folder(folder / 'train', per_class=4)
    (folder / 'empty').mkdir()
    for name, content in LISTS.items():
        (folder / name).write_bytes(content)
    text = CONFIG.format(
        runtime=str(ROOT / 'configs/_base_/default_runtime.py'),
        backbone=NARROW_RESNET,
        features=FEATURES,
    )
    (folder / 'config.py').write_text(text)
    return folder


@pytest.fixture
def train(folder, monkeypatch):
    """Return a function: run a tool on the config until training starts."""

    def start(*_, **__):
        raise Started

    monkeypatch.setattr(UniMoCo, 'train_step', start)
    monkeypatch.chdir(folder)

    def train(*options, tool=OURS):
        command = [str(tool), 'config.py', '--work-dir', 'work']
        changed = ['--cfg-options', *options] if options else []
        monkeypatch.setattr(sys, 'argv', command + changed)
        runpy.run_path(str(tool), run_name='__main__')

    return train


def listed(name):
    return [f'{DATA}.label_ratio=None', f'{DATA}.label_list={name}']


# Overrides, and parts of the message: the field, what is wrong, what to do.
BROKEN = {
    'queue-empty': (['model.head.queue_len=0'], 'model.head.queue_len', '> 0'),
    'tau-zero': (['model.head.temperature=0'], 'model.head.temperature'),
    'tau-of-positives': (
        ['model.head.positive_temperature=0'],
        'model.head.positive_temperature',
    ),
    'momentum-high': (['model.momentum=1.5'], 'model.momentum', '[0, 1]'),
    'momentum-word': (['model.momentum=fast'], 'model.momentum', 'number'),
    'momentum-end': (['model.end_momentum=2'], 'model.end_momentum', '[0, 1]'),
    'momentum-start': (
        ['model.start_momentum=0.1'],
        'model.momentum_warmup',
        'need each other',
    ),
    'warmup-word': (
        ['model.head.label_warmup=long'],
        'model.head.label_warmup',
    ),
    'propagation-name': (
        ['model.head.propagate_labels.neighbours=5'],
        'model.head.propagate_labels',
        'k, threshold',
    ),
    'dim-of-head': (
        ['model.head.feat_dim=16'],
        'model.neck.out_channels is 8',
        'model.head.feat_dim',
    ),
    'dim-of-neck': (
        ['model.neck.in_channels=32'],
        'model.neck.in_channels is 32',
        'model.backbone requires 64',
    ),
    'loss': (
        ['model.head.loss.type=UniConLos'],
        'model.head.loss.type',
        'did you mean UniConLoss',
    ),
    'loss-option': (
        [
            'model.head.loss.type=SupConLoss',
            'model.head.loss.reduction_position=mid',
        ],
        'model.head.loss.reduction_position',
        "'out' or 'in'",
    ),
    'backbone': (
        ['model.backbone.type=ResNett'],
        'model.backbone.type',
        'did you mean ResNet',
    ),
    'head': (
        ['model.head.type=UniMocoHead'],
        'model.head.type',
        'did you mean UniMoCoHead',
    ),
    'labels-beyond-the-head': (
        ['model.head.num_classes=2'],
        'model.head.num_classes is 2',
        'set model.head.num_classes=3',
    ),
    'ratio-high': ([f'{DATA}.label_ratio=1.5'], DATA, 'label_ratio', '[0, 1]'),
    'ratio-word': ([f'{DATA}.label_ratio=10%'], DATA, 'label_ratio', '10%'),
    'ratio-and-list': (
        [f'{DATA}.label_list=path.txt'],
        DATA,
        'label_ratio and label_list',
    ),
    'list-missing': (listed('none.txt'), DATA, 'label_list', 'none.txt'),
    'list-binary': (listed('binary.txt'), DATA, 'label_list', 'UTF-8'),
    'list-empty': (listed('empty.txt'), DATA, 'label_list', 'no image'),
    'list-unknown': (listed('unknown.txt'), DATA, 'label_list', 'nope.png'),
    'root-missing': (
        [f'{DATA}.dataset.data_root=nowhere'],
        f"{DATA}.dataset: there is no 'nowhere",
        'data_root',
    ),
    'root-empty': (
        [f'{DATA}.dataset.data_root=empty'],
        f'{DATA}.dataset: Found 0 files',
        'empty',
        'data_root',
    ),
    'dataset': (
        [f'{DATA}.dataset.type=CustomDatset'],
        f'{DATA}.dataset: CustomDatset is not in',
    ),
    'batch-empty': (
        ['train_dataloader.batch_size=0'],
        'train_dataloader: batch_size',
        'positive',
    ),
    'batch-large': (
        ['train_dataloader.batch_size=13'],
        'train_dataloader.batch_size is 13',
        '12 images',
    ),
    'validation-root': (
        ['val_dataloader.dataset.data_root=nowhere'],
        "val_dataloader: there is no 'nowhere",
        'data_root',
    ),
    'bank-root': (
        ['val_cfg.bank_dataloader.dataset.data_root=empty'],
        'val_cfg.bank_dataloader: Found 0 files',
        'data_root',
    ),
    'neighbours-none': (['val_cfg.k=0'], 'val_cfg.k', 'at least 1'),
    'neighbours-many': (['val_cfg.k=500'], 'val_cfg.k', 'has only 12'),
}


@pytest.mark.parametrize('case', BROKEN)
def test_field_is_named_before_training(case, train):
    options, *wanted = BROKEN[case]
    with pytest.raises((ValueError, TypeError, OSError)) as error:
        train(*options)
    message = str(error.value)
    assert '\n' not in message and len(message) < 400
    for part in wanted:
        assert part in message


def without_numbers(text):
    return re.sub(r'\d+', 'N', text)


@pytest.mark.parametrize('case', ['ratio-high', 'dim-of-head', 'loss'])
def test_documented_message(case, train):
    page = (ROOT / 'docs/reliability.md').read_text(encoding='utf-8')
    with pytest.raises(ValueError) as error:
        train(*BROKEN[case][0])
    # Which names are suggested besides the first, other tests may change.
    message, *_ = without_numbers(f'ValueError: {error.value}').split(' or ')
    assert message in without_numbers(page)


def test_message_in_the_faq(train):
    page = (ROOT / 'docs/faq.md').read_text(encoding='utf-8')
    (quoted,) = re.findall(r'## It stops with "(.*)"', page)
    with pytest.raises(ValueError) as error:
        train(*BROKEN['labels-beyond-the-head'][0])
    for part in without_numbers(quoted).split(' ... '):
        assert part in without_numbers(str(error.value))


@pytest.mark.parametrize('case', ['queue-empty', 'list-missing', 'root-empty'])
def test_mmpretrains_tool_names_the_field_too(case, train):
    options, *wanted = BROKEN[case]
    with pytest.raises((ValueError, OSError)) as error:
        train(*options, tool=THEIRS)
    assert all(part in str(error.value) for part in wanted)


@pytest.mark.parametrize(
    'options',
    [
        [],
        listed('windows.txt'),
        listed('path.txt'),
        ['model.head.num_classes=3'],
        # No listed image has label 2.
        [*listed('windows.txt'), 'model.head.num_classes=2'],
        [f'{DATA}.label_ratio=0', 'model.head.num_classes=1'],
        ['model.head.queue_len=1', 'model.momentum=0'],
    ],
    ids=' '.join,
)
def test_correct_settings_start(options, train):
    with pytest.raises(Started):
        train(*options)
