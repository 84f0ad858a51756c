"""The commands in tools/model_converters, and training from their results."""

import importlib.util
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from foreign_checkpoints import moco_checkpoint, unimoco_config
from image_folders import FEATURES, NARROW_RESNET, write_image_folder

from mmunimoco.__main__ import main
from mmunimoco.utils.normalization import IMAGENET
from mmunimoco.utils.safe_load import read_checkpoint

TOOLS = Path(__file__).parents[2] / 'tools'


def load(name):
    path = TOOLS / 'model_converters' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def to_ours():
    return load('to_mmunimoco').main


def from_ours(args):
    return main(['export', *args])


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """A checkpoint of MoCo in the file format of its time."""
    path = tmp_path_factory.mktemp('moco') / 'moco.pth.tar'
    checkpoint, *_ = moco_checkpoint()
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope='module')
def converted(published, to_ours):
    path = published.parent / 'sub' / 'moco.pth'
    assert to_ours([str(published), str(path)]) == 0
    return path


def test_to_mmunimoco(published, converted, to_ours, capsys):
    capsys.readouterr()
    before = converted.read_bytes()
    args = [str(published), str(converted)]
    assert to_ours(args) == 1
    assert '--force' in capsys.readouterr().err
    assert converted.read_bytes() == before
    assert to_ours([*args, '--force', '--source', 'moco']) == 0
    said = capsys.readouterr().out
    assert 'source: moco' in said and "'backbone.' (120 keys)" in said
    assert 'mean [123.675, 116.28, 103.53]' in said
    given = ['--mean', '1', '2', '3', '--std', '4', '5', '6']
    assert to_ours([*args, '--force', *given]) == 0
    normalization = read_checkpoint(converted)['meta']['normalization']
    assert normalization == dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)
    assert to_ours([*args, '--force']) == 0
    normalization = read_checkpoint(converted)['meta']['normalization']
    assert normalization == IMAGENET
    assert os.listdir(converted.parent) == ['moco.pth']


def test_problem_is_printed(tmp_path, converted, to_ours, capsys):
    out = tmp_path / 'out.pth'
    cut = tmp_path / 'cut.pth'
    cut.write_bytes(converted.read_bytes()[:5000])
    for source, message in (
        (tmp_path / 'gone.pth', 'gone.pth does not exist'),
        (cut, 'is damaged'),
        (converted, 'there is nothing to convert'),
    ):
        assert to_ours([str(source), str(out)]) == 1
        assert message in capsys.readouterr().err
    for name in ('--mean', '--std'):
        assert to_ours([str(converted), str(out), name, '1', '2', '3']) == 1
        assert 'are given together' in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    assert from_ours([str(converted), str(out), '--format', 'timm']) == 1
    assert 'is a folder' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('mean', 'std', 'message'),
    [
        ('0 0 0', '1 0 1', 'error: .*--std must be positive numbers'),
        ('0 0 0', '1 -1 1', 'error: .*--std must be positive numbers'),
        ('0 0 0', '1 nan 1', 'error: .*--std must be positive numbers'),
        ('0 0 0', '1 inf 1', 'error: .*--std must be positive numbers'),
        ('0 nan 0', '1 1 1', 'error: .*--mean must be finite numbers'),
        ('0 inf 0', '1 1 1', 'error: .*--mean must be finite numbers'),
        ('.5 .5 .5', '.2 .2 .2', 'warning: .*multiply --mean and --std by'),
        ('104 117 124', '1 1 1', ''),
    ],
)
def test_statistics_that_images_cannot_have(
    tmp_path, converted, capsys, mean, std, message
):
    out = tmp_path / 'out.pth'
    given = ['--mean', *mean.split(), '--std', *std.split()]
    args = [str(converted), str(out), '--format', 'backbone', *given]
    failed = message.startswith('error')
    assert from_ours(args) == failed
    assert out.exists() is not failed
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count('\n') == bool(message)


def test_full_disk_is_that_of_the_result(
    tmp_path, converted, capsys, full_disk
):
    out = tmp_path / 'out.pth'
    assert from_ours([str(converted), str(out), '--format', 'timm']) == 1
    assert f'error: {out}: [Errno 28]' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_safetensors_round_trip(tmp_path, converted, to_ours, capsys):
    pytest.importorskip('safetensors')
    file, back = tmp_path / 'a.safetensors', tmp_path / 'back.pth'
    args = [str(converted), str(file), '--format', 'safetensors']
    assert from_ours([*args, '--encoder', 'momentum']) == 0
    assert to_ours([str(file), str(back)]) == 0
    assert 'source: torchvision' in capsys.readouterr().out
    expected = read_checkpoint(converted)['state_dict']
    state = read_checkpoint(back)['state_dict']
    assert len(state) == 120
    for key, value in state.items():
        twin = key.replace('backbone.', 'encoder_k.module.0.')
        assert torch.equal(value, expected[twin]), key
    file.write_bytes(file.read_bytes()[:300])
    assert to_ours([str(file), str(back), '--force']) == 1
    assert 'is damaged or not a safetensors' in capsys.readouterr().err


CONFIG = """
custom_imports = dict(imports=['mmunimoco'], allow_failed_imports=False)
custom_hooks = [dict(type='PreflightHook')]
default_scope = 'mmpretrain'
model = {model!r}
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_dataloader = dict(
    batch_size=4, num_workers=0, drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset', data_root={data!r}, pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='MultiView', num_views=2, transforms=[
                [dict(type='RandomResizedCrop', scale=32)]]),
            dict(type='PackInputs')]))
optim_wrapper = dict(optimizer=dict(type='SGD', lr={lr}, momentum=0.9))
param_scheduler = dict(type='MultiStepLR', milestones=[1], gamma=0.5, end=9)
train_cfg = dict(by_epoch=True, max_epochs={epochs})
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Nine images: two steps an epoch."""
    folder = tmp_path_factory.mktemp('images')
    return str(write_image_folder(folder, per_class=3))


@pytest.fixture
def train(tmp_path, monkeypatch, data):
    """Run tools/train.py in this process; return the last checkpoint."""

    def train(name, model, *arguments, lr=0.0, epochs=1):
        config, work_dir = tmp_path / f'{name}.py', tmp_path / name
        text = CONFIG.format(model=model, data=data, lr=lr, epochs=epochs)
        config.write_text(text)
        command = [TOOLS / 'train.py', config, '--work-dir', work_dir]
        command += ['--no-validate', *arguments]
        monkeypatch.setattr(sys, 'argv', [str(part) for part in command])
        runpy.run_path(str(command[0]), run_name='__main__')
        return work_dir / f'epoch_{epochs}.pth'

    return train


@pytest.mark.parametrize('option', ['load_from', 'resume'])
def test_moco_continues_as_unimoco(converted, train, option):
    """With learning rate 0 only momentum encoder and queues change."""
    arguments = ['--cfg-options', f'load_from={converted}']
    if option == 'resume':
        arguments = ['--resume', converted]
    end = train(option, unimoco_config(), *arguments)
    old, new = (read_checkpoint(p)['state_dict'] for p in (converted, end))
    assert old.keys() == new.keys()
    trained = [
        key
        for key in old
        if key.startswith(('backbone.', 'neck.'))
        and key.endswith(('weight', 'bias'))
    ]
    assert len(trained) == 64
    for key in trained:
        assert torch.equal(new[key], old[key]), key
    for part, twin in (
        ('backbone.conv1', '0.conv1'),
        ('neck.mlp.2', '1.mlp.2'),
    ):
        query = old[f'{part}.weight']
        key = f'encoder_k.module.{twin}.weight'
        moved = old[key].lerp(query, 0.01).lerp(query, 0.01)
        torch.testing.assert_close(new[key], moved)
    # Two batches of four are enqueued from the stored pointer on: 4 to 11.
    assert new['encoder_k.steps'] == 3
    assert new['head.queue_ptr'] == 0
    assert torch.equal(new['head.queue'][:4], old['head.queue'][:4])
    assert not (new['head.queue'][4:] == old['head.queue'][4:]).any()
    labels = new['head.label_queue']
    assert labels[:4].tolist() == [-1] * 4
    assert set(labels[4:].tolist()) <= {0, 1, 2}


def test_mmpretrain_resumes_as_unimoco(tmp_path, train, to_ours):
    """Epoch, optimizer and schedule continue too."""
    neck = dict(
        type='MoCoV2Neck',
        in_channels=FEATURES,
        hid_channels=16,
        out_channels=8,
    )
    parts = dict(backbone=NARROW_RESNET, neck=neck, momentum=0.01)
    loss = dict(type='CrossEntropyLoss', loss_weight=1.0)
    head = dict(type='ContrastiveHead', loss=loss, temperature=0.2)
    moco = dict(type='MoCo', head=head, queue_len=8, feat_dim=8, **parts)
    first = train('moco', moco, lr=0.01, epochs=2).with_name('epoch_1.pth')
    ours = tmp_path / 'ours.pth'
    assert to_ours([str(first), str(ours)]) == 0

    head = dict(type='UniMoCoHead', feat_dim=8, queue_len=8)
    unimoco = dict(type='UniMoCo', head=head, **parts)
    end = read_checkpoint(
        train('unimoco', unimoco, '--resume', ours, lr=0.01, epochs=2)
    )
    assert (end['meta']['epoch'], end['meta']['iter']) == (2, 4)
    assert end['state_dict']['encoder_k.steps'] == 4
    assert end['param_schedulers'][0]['last_step'] == 2
    # Every trained parameter has its momentum, and the learning rate is that
    # after the milestone.
    old = read_checkpoint(ours)['optimizer']
    assert old['state'].keys() == end['optimizer']['state'].keys()
    assert len(old['state']) == 64
    assert end['optimizer']['param_groups'][0]['lr'] == pytest.approx(0.005)
    assert not (tmp_path / 'unimoco' / 'epoch_1.pth').exists()
