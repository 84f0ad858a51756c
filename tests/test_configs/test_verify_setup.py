"""tools/misc/verify_setup.py on real files: what is right, what is not."""

import runpy
import sys
from pathlib import Path

import pytest
from image_folders import NARROW_RESNET, write_image_folder
from mmengine.config import Config

from mmunimoco import setup_check
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
def quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr(Config, 'pretty_text', property(repr))
    monkeypatch.setattr(setup_check, 'collect_versions', dict)


@pytest.fixture
def config(tmp_path):
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


def results(findings):
    """{check: (ok, text, fix)}."""
    return {f.name: (f.ok, f.text, f.fix) for f in findings}


def problems(found):
    return [name for name, (ok, _, _) in found.items() if ok is False]


def test_all_is_well(config, tmp_path):
    before = sorted(tmp_path.rglob('*'))
    found = results(verify_setup(config))
    assert not problems(found)
    assert list(found) == [
        *('versions', 'config', 'data', 'samples', 'labels', 'evaluation'),
        *('work folder', 'model', 'step', 'checkpoint', 'disk'),
    ]
    assert found['data'][1] == '12 images of CustomDataset'
    samples = '12 samples load, each 2 views of 3 x 32 x 32, torch.uint8'
    assert found['samples'][1] == samples
    assert found['labels'][1] == (
        '6 of 12 images have a label, of 3 classes with 2 to 2 images each'
    )
    assert 'queue of 32 keys of 8' in found['model'][1]
    assert 'for 4 images' in found['step'][1]
    # All five of ten epochs every two, and the one being written.
    assert '6 checkpoints at a time' in found['disk'][1]
    assert sorted(tmp_path.rglob('*')) == before


DEMO = ROOT / 'configs/demo/unimoco_resnet18_fmnist.py'
CIFAR = ROOT / 'configs/unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10.py'
CIFAR_FAST = CIFAR.with_stem(f'{CIFAR.stem}_fast')
IMAGENET_FAST = (
    ROOT
    / 'configs/unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k-10pct_fast.py'
)


@pytest.mark.parametrize(
    ('path', 'kind', 'changed'),
    [
        (CIFAR, 'CIFAR10', 'for 16 images'),
        (CIFAR_FAST, 'CIFAR10', 'the images are on the device'),
        (IMAGENET_FAST, 'ImageNet', 'for 4 images'),
    ],
    ids=['cifar', 'cifar_fast', 'imagenet_fast'],
)
def test_shipped_configs(data_roots, tmp_path, path, kind, changed):
    root = data_roots[kind]
    options = {
        'train_dataloader.dataset.dataset.data_root': root,
        'train_dataloader.dataset.label_ratio': 0.5,
        'train_dataloader.num_workers': 1,
        'train_dataloader.drop_last': False,
        'val_dataloader.dataset.data_root': root,
        'val_cfg.bank_dataloader.dataset.data_root': root,
        'model.head.queue_len': 64,
    }
    if kind == 'ImageNet':
        pipeline = 'train_dataloader.dataset.dataset.pipeline'
        options[f'{pipeline}.0.scale'] = 64
    found = results(verify_setup(path, options, str(tmp_path)))
    assert not problems(found), found
    assert changed in str(found)


def test_command_line(monkeypatch, tmp_path, capsys):
    """The demo's config; and a problem with its fix."""
    tool = str(ROOT / 'tools/misc/verify_setup.py')
    command = [tool, str(DEMO), '--work-dir', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', command)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name='__main__')
    text = capsys.readouterr().out
    assert ended.value.code == 0 and 'No problem found' in text
    assert '6000 images of NpzImages' in text
    option = 'train_dataloader.dataset.dataset.split=gone'
    monkeypatch.setattr(sys, 'argv', [*command, '--cfg-options', option])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name='__main__')
    text = capsys.readouterr().out
    assert ended.value.code == 1 and 'Fix:' in text
    assert 'Problems: data' in text


def test_no_data(config, tmp_path):
    """The rest is checked all the same."""
    gone = str(tmp_path / 'gone')
    found = results(
        verify_setup(
            config, {'train_dataloader.dataset.dataset.data_prefix': gone}
        )
    )
    assert problems(found) == ['data']
    assert 'data_root' in found['data'][2]
    assert [n for n, (ok, _, _) in found.items() if ok is None] == [
        *('samples', 'labels', 'step', 'checkpoint', 'disk')
    ]
    assert found['model'][0]


def test_broken_files(config, tmp_path):
    path = tmp_path / 'images/class_1/2.png'
    path.write_bytes(path.read_bytes()[:-100])
    found = results(verify_setup(config))
    assert 'samples' in problems(found)
    assert str(path) in found['samples'][1]
    assert 'SkipBrokenImages' in found['samples'][2]
    skipping = dict(
        _delete_=True,
        type='SkipBrokenImages',
        max_broken=1,
        dataset=Config.fromfile(config).train_dataloader.dataset,
    )
    found = results(
        verify_setup(config, {'train_dataloader.dataset': skipping})
    )
    assert not problems(found)
    assert str(path) in found['samples'][1]


def test_several_problems_at_once(config, tmp_path):
    """Too many classes, a loss that is not finite, no place to write."""
    (tmp_path / 'file').touch()
    changes = {
        'model.head.num_classes': 2,
        'train_dataloader.dataset.label_ratio': 1.0,
    }
    found = results(verify_setup(config, changes))
    assert found['labels'][0] is False
    assert 'a label 2, but model.head.num_classes' in found['labels'][1]
    assert found['step'][0] is False
    assert 'correct the annotations' in found['step'][1]
    found = results(verify_setup(config, {'model.head.temperature': 1e-40}))
    assert problems(found) == ['step']
    assert 'the loss of the first step is' in found['step'][1]
    found = results(
        verify_setup(config, work_dir=str(tmp_path / 'file/deeper'))
    )
    assert problems(found) == ['work folder']
    assert 'is a file' in found['work folder'][1]
    assert found['checkpoint'][0] is None


def test_disk(config, monkeypatch):
    """One that is too small, and one that changes what is written."""
    free = type('Usage', (), dict(free=10**5))
    monkeypatch.setattr(setup_check.shutil, 'disk_usage', lambda folder: free)
    found = results(verify_setup(config))
    assert problems(found) == ['disk']
    assert 'max_keep_ckpts' in found['disk'][2]
    read = setup_check.read_checkpoint

    def read_changed(path):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return read(path)

    monkeypatch.setattr(setup_check, 'read_checkpoint', read_changed)
    found = results(verify_setup(config))
    assert problems(found) == ['checkpoint'] and found['disk'][0] is None
    assert 'checksum' in found['checkpoint'][1]


def test_what_is_no_config_of_pre_training(tmp_path):
    found = results(verify_setup(tmp_path / 'gone.py'))
    assert problems(found) == ['config'] and 'gone.py' in found['config'][1]
    path = tmp_path / 'little.py'
    path.write_text("model = dict(type='UniMoCo')\n")
    found = results(verify_setup(path))
    assert 'has no train_dataloader' in found['config'][1]
    assert list(found) == ['versions', 'config']
