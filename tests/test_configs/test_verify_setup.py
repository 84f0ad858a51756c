"""tools/misc/verify_setup.py on real files, correct ones and others."""

import errno
import importlib
import runpy
import sys
from pathlib import Path

import pytest
from image_folders import NARROW_RESNET, write_image_folder

from mmunimoco import setup_check, setup_step
from mmunimoco.engine.checks import memory
from mmunimoco.setup_check import verify_setup

ROOT = Path(__file__).parents[2]
TINY = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmunimoco'], allow_failed_imports=False)
model = dict(
    type='UniMoCo',
    backbone={backbone!r},
    neck=dict(type='MoCoV2Neck', in_channels=64, hid_channels=16,
              out_channels=8),
    head=dict(type='UniMoCoHead', feat_dim=8, queue_len=32, num_classes=3))
data_preprocessor = dict(type='TwoViewAugment')
train_dataloader = dict(
    batch_size=4, num_workers=1, drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='PartialLabels', label_ratio=0.5, dataset=dict(
        type='CustomDataset', data_prefix={folder!r}, pipeline=[
            dict(type='LoadTwoCrops', scale=32), dict(type='PackInputs')])))
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9))
train_cfg = dict(type='ExactEpochLoop', max_epochs=10)
default_hooks = dict(checkpoint=dict(type='ExactCheckpointHook', interval=2))
work_dir = {work_dir!r}
"""


@pytest.fixture(autouse=True)
def _without_slow_descriptions(monkeypatch):
    monkeypatch.setattr(setup_check, 'collect_versions', dict)


@pytest.fixture
def config(tmp_path):
    """A config for twelve images of three classes."""
    folder = write_image_folder(tmp_path / 'images', per_class=4)
    path = tmp_path / 'tiny.py'
    path.write_text(
        TINY.format(
            backbone=NARROW_RESNET,
            folder=str(folder),
            work_dir=str(tmp_path / 'runs/tiny'),
        )
    )
    return path


def check(*args, **options):
    """Return the findings by name."""
    return {each.name: each for each in verify_setup(*args, **options)}


def problems(found):
    return [name for name, finding in found.items() if finding.ok is False]


def skipped(found):
    return [name for name, finding in found.items() if finding.ok is None]


def test_no_problem(config, tmp_path):
    before = sorted(tmp_path.rglob('*'))
    found = check(config)
    assert all(finding.ok for finding in found.values()), found
    assert found['data'].text == '12 images of CustomDataset'
    samples = '12 samples load, each 2 views of 3 x 32 x 32, torch.uint8'
    assert found['samples'].text == samples
    assert found['labels'].text == (
        '6 of 12 images have a label, 3 classes with 2 to 2 each'
    )
    assert 'queue of 32 keys of 8' in found['model'].text
    assert 'for 4 images' in found['step'].text
    # Five, one every two of the ten epochs, and the one being written.
    assert '6 checkpoints at a time' in found['disk'].text
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
    ('options', 'count'),
    [
        (dict(by_epoch=False, interval=2), 16),  # three steps an epoch
        (dict(by_epoch=False, interval=30, save_best=['a', 'b']), 4),
        (dict(interval=3, save_best='knn'), 6),
        (dict(interval=1, max_keep_ckpts=3), 4),
        (dict(interval=-1), 1),
    ],
)
def test_checkpoints_that_are_kept(config, options, count):
    found = check(config, {'default_hooks.checkpoint': options})
    assert f'{count} checkpoints at a time' in found['disk'].text


@pytest.mark.parametrize(
    ('name', 'data', 'images'),
    [
        ('unimoco_resnet18_1xb512-coslr-200e_cifar10', 'CIFAR10', 4),
        ('unimoco_resnet50_8xb32-coslr-200e_in1k-10pct', 'ImageNet', 4),
    ],
)
def test_shipped_config(data_roots, tmp_path, name, data, images):
    root = data_roots[data]
    options = {
        'train_dataloader.dataset.dataset.data_root': root,
        'train_dataloader.dataset.label_ratio': 0.5,
        'train_dataloader.num_workers': 1,
        'train_dataloader.drop_last': False,
        'val_dataloader.dataset.data_root': root,
        'val_cfg.bank_dataloader.dataset.data_root': root,
        'model.head.queue_len': 64,
    }
    if data == 'ImageNet':
        pipeline = 'train_dataloader.dataset.dataset.pipeline'
        options[f'{pipeline}.0.scale'] = 64
    path = ROOT / f'configs/unimoco/{name}.py'
    found = check(path, options, str(tmp_path))
    assert not problems(found), found
    assert f'for {images} images' in found['step'].text


def test_command_line(config, monkeypatch, capsys):
    tool = str(ROOT / 'tools/misc/verify_setup.py')

    def run(*options):
        monkeypatch.setattr(sys, 'argv', [tool, str(config), *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(tool, run_name='__main__')
        return ended.value.code, capsys.readouterr().out

    status, text = run()
    assert status == 0
    assert 'No problem, but warnings: queue, batch norm\n' in text
    folder = 'train_dataloader.dataset.dataset.data_prefix=gone'
    status, text = run('--cfg-options', folder)
    assert status == 1 and 'Fix:' in text and 'Problems: data\n' in text


def warnings(found):
    return [name for name, finding in found.items() if finding.warning]


def test_settings_that_do_not_fit(config):
    found = check(config)
    assert warnings(found) == ['queue', 'batch norm']
    assert 'queue_len is 32 for 12' in found['queue'].text
    fitting = {
        'model.head.queue_len': 6,
        'model.backbone.norm_cfg': dict(type='SplitBatchNorm', num_splits=2),
    }
    assert not warnings(check(config, fitting))
    config.write_text(
        f'{config.read_text()}\nparam_scheduler = dict(type='
        "'CosineAnnealingLR', T_max=200)\n"
        'auto_scale_lr = dict(base_batch_size=64)\n'
    )
    found = check(config, fitting)
    assert warnings(found) == ['learning rate', 'schedule']
    assert 'T_max is 200, but the run has 10' in found['schedule'].text
    found = verify_setup(config, fitting, processes=16)
    assert [x.name for x in found if x.warning] == ['schedule']
    one_cycle = dict(type='OneCycleLR', eta_max=1, total_steps=5)
    found = check(config, fitting | dict(param_scheduler=[one_cycle]))
    assert found['schedule'].ok is False and found['checkpoint'].ok


@pytest.fixture
def validated(config):
    """The config with kNN of six images against those of training."""
    text = config.read_text()
    loader = (
        'dict(batch_size=4, num_workers=0, dataset=dict('
        "type='CustomDataset', data_prefix={folder!r}, pipeline=["
        "dict(type='CheckedLoadImageFromFile'), dict(type='PackInputs')]))"
    )
    folder = config.parent / 'images'
    other = write_image_folder(config.parent / 'val', classes=3, per_class=2)
    val, bank = (loader.format(folder=str(x)) for x in (other, folder))
    config.write_text(
        f"{text}\nval_dataloader = {val}\nval_cfg = dict(type='KNNValLoop', "
        f'k=3, bank_dataloader={bank})\n'
        "val_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')\n"
    )
    return config, other


MANY = """
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS


@DATASETS.register_module(force=True)
class ManyLabels(CustomDataset):
    def load_data_list(self):
        found = super().load_data_list()
        found[3]['gt_label'] = [0, 1]
        return found
"""


@pytest.mark.parametrize(
    'field', ['val_dataloader', 'val_cfg.bank_dataloader']
)
def test_labels_that_knn_refuses(validated, monkeypatch, field):
    config, _ = validated
    (config.parent / 'many_labels.py').write_text(MANY)
    monkeypatch.syspath_prepend(config.parent)
    importlib.import_module('many_labels')
    found = check(config, {f'{field}.dataset.type': 'ManyLabels'})
    assert problems(found) == ['evaluation']
    assert f'{field}: class_' in found['evaluation'].text
    assert 'has 2 labels, but kNN needs one' in found['evaluation'].text
    # Some queries without a label, and a bank of none with one.
    names = [
        f'class_{label}/{index}.png' for label in (0, 1) for index in (0, 1)
    ]
    known = 3 if field == 'val_dataloader' else 0
    path = config.parent / 'list.txt'
    lines = [f'{x} {x[6] if i < known else -1}' for i, x in enumerate(names)]
    path.write_text('\n'.join(lines))
    found = check(config, {f'{field}.dataset.ann_file': str(path)})
    assert problems(found) == ['evaluation']
    text = f'{field}: {known} of 4 images have a label'
    assert text in found['evaluation'].text


def test_validation(validated, monkeypatch):
    """Of two classes less, and of a bank that does not fit the memory."""
    config, other = validated
    found = check(config)
    assert not problems(found)
    assert 'there are 3 classes; only (1,)' in found['top-k'].text
    assert found['memory'].text.startswith('needed: a step 0.0 GB, kNN 0.0 GB')
    activations = 4 * 32 * 32 * 8 * 4  # at least the stem's
    monkeypatch.setattr(memory, 'available_memory', lambda: float(activations))
    found = check(config)
    assert problems(found) == ['memory']
    assert 'activations of 4 images' in found['memory'].text
    found = check(config, processes=2)
    assert 'activations of 8 images' in found['memory'].text
    monkeypatch.undo()
    monkeypatch.setattr(setup_check, 'collect_versions', dict)
    (other / 'class_1').rename(config.parent / 'gone')
    found = check(config)
    assert problems(found) == ['evaluation']
    assert 'class_1' in found['evaluation'].text
    # Its last image.
    (config.parent / 'gone').rename(other / 'class_1')
    (other / 'class_2/1.png').write_text('')
    found = check(config)
    assert problems(found) == ['evaluation']
    assert 'class_2/1.png' in found['evaluation'].text


def test_splits_without_enough_images(config):
    norm = {'model.backbone.norm_cfg.type': 'SplitBatchNorm'}
    splits = 'model.backbone.norm_cfg.num_splits'
    assert not problems(check(config, {**norm, splits: 2}))
    found = check(config, {**norm, splits: 3})  # of a batch of 4
    assert problems(found) == ['step'] and 'split' in found['step'].text


def test_misspelt_fields(config):
    found = check(config, {'train_dataloder.batch_size': 32})
    assert problems(found) == ['config']
    assert 'did you mean train_dataloader' in found['config'].text


def test_fewer_images_than_a_batch(config):
    """They are enough unless incomplete batches are dropped."""
    changes = {'train_dataloader.dataset.dataset.indices': 3}
    found = check(config, changes)
    assert problems(found) == ['data']
    assert 'drop_last=False' in found['data'].fix
    found = check(config, {**changes, 'train_dataloader.drop_last': False})
    assert not problems(found)
    changes['train_dataloader.dataset.dataset.indices'] = 4  # one batch
    assert not problems(check(config, changes))


def test_missing_data(config, tmp_path):
    """Everything that does not need it is still checked."""
    gone = str(tmp_path / 'gone')
    prefix = 'train_dataloader.dataset.dataset.data_prefix'
    found = check(config, {prefix: gone})
    assert problems(found) == ['data']
    assert 'data_root' in found['data'].fix
    assert skipped(found) == [
        'samples',
        'labels',
        'settings',
        'step',
        'memory',
        'checkpoint',
        'disk',
    ]
    assert found['model'].ok


def test_disk_that_is_full(config, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(setup_check, 'build', fail)
    found = check(config)
    assert 'No space' in found['model'].text
    assert 'a folder with space' in found['model'].fix


@pytest.mark.parametrize(
    'line', ['', 'class_0/1.png', 'class_0/1.png,0', 'class_0/1.png cat']
)
def test_wrong_line_of_a_list(config, tmp_path, line):
    path = tmp_path / 'list.txt'
    path.write_text(f'class_0/0.png 0\n{line}\nclass_1/0.png 1\n')
    prefix = 'train_dataloader.dataset.dataset.ann_file'
    found = check(config, {prefix: str(path)})
    assert problems(found) == ['data']
    assert f'{path}, line 2: {line!r} is not' in found['data'].text
    assert 'or correct their list' in found['data'].fix


def test_first_and_last_of_many_images_are_loaded(config, tmp_path):
    """Both are not among those that are drawn."""
    folder = write_image_folder(tmp_path / 'images', per_class=13)
    cut = [folder / 'class_0/0.png', folder / 'class_2/12.png']
    for path in cut:
        path.write_bytes(path.read_bytes()[:-100])
    found = check(config)
    assert '2 of 18 samples do not load' in found['samples'].text
    assert all(str(path) in found['samples'].text for path in cut)


def test_list_that_is_no_text(config, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes(b'caf\xe9.png 0\n')
    prefix = 'train_dataloader.dataset.dataset.ann_file'
    found = check(config, {prefix: str(path)})
    assert f'{path} is not UTF-8 text' in found['data'].text


def test_broken_file(config, tmp_path):
    path = tmp_path / 'images/class_1/2.png'
    path.write_bytes(path.read_bytes()[:-100])
    found = check(config)
    assert 'samples' in problems(found)
    assert str(path) in found['samples'].text
    assert 'SkipBrokenImages' in found['samples'].fix
    text = config.read_text()
    config.write_text(
        f'{text}\ntrain_dataloader["dataset"] = dict(type="SkipBrokenImages", '
        'max_broken=1, dataset=train_dataloader["dataset"])\n'
    )
    found = check(config)
    assert not problems(found)
    assert str(path) in found['samples'].text


def test_labels_outside_the_head(config):
    changes = {
        'model.head.num_classes': 2,
        'train_dataloader.dataset.label_ratio': 1.0,
    }
    found = check(config, changes)
    assert problems(found) == ['labels', 'step']
    assert 'a label 2, but model.head.num_classes' in found['labels'].text
    assert 'correct the annotations' in found['step'].text


def test_labels_outside_the_classes_of_the_data_set(config):
    """Which its own labels do not agree with."""
    folder = config.parent / 'images'
    lists = config.parent / 'all.txt'
    names = sorted(x.relative_to(folder) for x in folder.rglob('*.*'))
    lists.write_text(
        ''.join(f'{name} {i % 3}\n' for i, name in enumerate(names))
    )
    changes = {
        'train_dataloader.dataset.dataset.ann_file': str(lists),
        'train_dataloader.dataset.dataset.classes': ['a', 'b'],
        'train_dataloader.dataset.label_ratio': 1.0,
    }
    found = check(config, changes)
    assert problems(found) == ['labels']
    text = 'a label 2, but the list of classes of CustomDataset allows 2 cl'
    assert text in found['labels'].text


def test_loss_that_is_not_finite(config):
    found = check(config, {'model.head.temperature': 1e-40})
    assert problems(found) == ['step']
    assert 'the loss of the first step is' in found['step'].text


def test_work_folder_below_a_file(config, tmp_path):
    (tmp_path / 'file').touch()
    found = check(config, work_dir=str(tmp_path / 'file/deeper'))
    assert problems(found) == ['work folder']
    assert 'is a file' in found['work folder'].text
    assert found['checkpoint'].ok is None


def test_disk(config, monkeypatch):
    """One that is too small, and one that changes what is written."""
    free = type('Usage', (), dict(free=10**5))
    monkeypatch.setattr(setup_step.shutil, 'disk_usage', lambda folder: free)
    found = check(config)
    assert problems(found) == ['disk']
    assert 'max_keep_ckpts' in found['disk'].fix
    read = setup_step.read_checkpoint

    def read_changed(path):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return read(path)

    monkeypatch.setattr(setup_step, 'read_checkpoint', read_changed)
    found = check(config)
    assert problems(found) == ['checkpoint'] and skipped(found) == ['disk']
    assert 'checksum' in found['checkpoint'].text


def test_not_a_pretraining_config(tmp_path):
    found = check(tmp_path / 'gone.py')
    assert problems(found) == ['config'] and 'gone.py' in found['config'].text
    path = tmp_path / 'little.py'
    path.write_text("model = dict(type='UniMoCo')\n")
    found = check(path)
    assert 'has no train_dataloader' in found['config'].text
    assert list(found) == ['versions', 'config']
