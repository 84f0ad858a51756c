"""tools/benchmarks/{mmdetection,mmsegmentation}/*.sh."""

import json
import os
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from mmpretrain.registry import MODELS

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / 'tools/benchmarks'
CONFIGS = ROOT / 'configs/benchmarks'
HOSTS = dict(mmdetection='mmdet', mmsegmentation='mmseg')

# Fake commands that print their arguments.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    *find_spec*) [ -n "$FAKE_HOST" ] && echo "$FAKE_HOST" ;;
    *is_available*) [ "$FAKE_CUDA" = 1 ] ;;
    *scale_schedule*) echo "$FAKE_SCHEDULE"; echo "ASKED $*" >&2 ;;
    *) echo "RUN PRETRAINED=$PRETRAINED python $*" ;;
esac
"""
SRUN = '#!/usr/bin/env bash\necho "RUN PRETRAINED=$PRETRAINED srun $*"\n'

BACKBONE = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
NORMALIZATION = (
    'data_preprocessor = dict(mean=[123.675, 116.28, 103.53], '
    'std=[58.395, 57.12, 57.375], to_rgb=True)'
)
# Overrides that make the shipped configs small.
DETECTION = """
_base_ = {base!r}
backbone = dict(depth=18, stem_channels=8, base_channels=8)
extractor = dict(out_channels=8)
model = dict(
    backbone=backbone,
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=extractor, mask_roi_extractor=extractor,
        bbox_head=dict(in_channels=8, conv_out_channels=8, fc_out_channels=8),
        mask_head=dict(in_channels=8, conv_out_channels=8)),
    # An untrained detector has low scores.
    test_cfg=dict(rcnn=dict(score_thr=0.0)))
resize = dict(type='Resize', scale=(96, 64))
train_dataloader = dict(
    num_workers=0, persistent_workers=False, batch_size=2,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        resize, dict(type='PackDetInputs')]))
test_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'), resize,
        dict(type='PackDetInputs', meta_keys=(
            'img_id', 'ori_shape', 'img_shape', 'scale_factor'))]))
train_cfg = dict(max_epochs=1, val_begin=2)
optim_wrapper = dict(optimizer=dict(lr=1e-8))
default_hooks = dict(logger=dict(interval=1))
"""
SEGMENTATION = """
_base_ = {base!r}
crop_size = (32, 32)
head = dict(channels=8, num_convs=1)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(depth=18, stem_channels=8, base_channels=8),
    decode_head=dict(head, in_channels=64),
    auxiliary_head=dict(head, in_channels=32))
train_dataloader = dict(
    num_workers=0, persistent_workers=False, batch_size=2,
    dataset=dict(datasets=[
        dict(part, pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='RandomCrop', crop_size=crop_size),
            dict(type='PackSegInputs')])
        for part in _base_.train_dataloader.dataset.datasets]))
test_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(48, 32)),
        dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
train_cfg = dict(max_iters=1, val_begin=20)
optim_wrapper = dict(optimizer=dict(lr=1e-8))
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""


def run(*command, status=0, **environment):
    """Run a script on the CPU and return its output."""
    done = subprocess.run(
        ['bash', *map(str, command)],
        env={
            **os.environ,
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == status, output[-4000:]
    return output


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Environment with a fake Python and Slurm, in a folder with inputs."""
    host = tmp_path / 'host'
    for path in ('bin/python', 'bin/srun', 'c.py', 'a.pth'):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch(mode=0o755)
    (tmp_path / 'bin/python').write_text(PYTHON)
    (tmp_path / 'bin/srun').write_text(SRUN)
    (host / '.mim/tools').mkdir(parents=True)
    for name in ('train.py', 'test.py'):
        (host / '.mim/tools' / name).touch()
    monkeypatch.chdir(tmp_path)
    return dict(
        PATH=f'{tmp_path / "bin"}:{os.environ["PATH"]}',
        FAKE_HOST=str(host),
        FAKE_CUDA='1',
        FAKE_SCHEDULE='',
        PRETRAINED='',
    )


@pytest.mark.parametrize('folder', HOSTS)
def test_torchrun_starts_the_hosts_tools(folder, fakes, tmp_path):
    environment = dict(fakes, PORT='1', NNODES='2', NODE_RANK='1')
    environment['MASTER_ADDR'] = 'first'
    torchrun = (
        'python -m torch.distributed.run --nnodes=2 --node_rank=1 '
        '--master_addr=first --master_port=1 --nproc_per_node=8 '
        f'{tmp_path}/host/.mim/tools'
    )
    target = ['c.py', 'a.pth', '8']
    script = SCRIPTS / folder / 'dist_train.sh'
    output = run(script, *target, '--work-dir', 'a b', **environment)
    assert output == (
        f'RUN PRETRAINED={tmp_path}/a.pth {torchrun}/train.py c.py '
        '--work-dir a b --launcher pytorch\n'
    )
    output = run(SCRIPTS / folder / 'dist_test.sh', *target, **environment)
    assert output == (
        f'RUN PRETRAINED= {torchrun}/test.py c.py {tmp_path}/a.pth '
        '--launcher pytorch\n'
    )


@pytest.mark.parametrize('folder', HOSTS)
def test_slurm_starts_the_hosts_tools(folder, fakes, tmp_path):
    tools = f'{tmp_path}/host/.mim/tools'
    script = SCRIPTS / folder / 'slurm_train.sh'
    output = run(script, 'c.py', 'a.pth', '4', '--amp', **fakes)
    assert output == (
        f'RUN PRETRAINED={tmp_path}/a.pth srun --job-name=c '
        '--gres=gpu:4 --ntasks=4 --ntasks-per-node=4 --cpus-per-task=5 '
        f'--kill-on-bad-exit=1 python -u {tools}/train.py c.py '
        '--amp --launcher slurm\n'
    )
    script = SCRIPTS / folder / 'slurm_test.sh'
    environment = dict(fakes, PARTITION='queue', JOB_NAME='a job')
    environment.update(SRUN_ARGS='-t 1', CPUS_PER_TASK='3')
    output = run(script, 'c.py', 'a.pth', '16', **environment)
    assert 'srun --partition=queue --job-name=a job --gres=gpu:8 ' in output
    assert '--ntasks=16 --ntasks-per-node=8 --cpus-per-task=3' in output
    assert f'-t 1 python -u {tools}/test.py c.py {tmp_path}/a.pth' in output


@pytest.mark.parametrize(
    ('folder', 'passed'),
    [
        ('mmdetection', '--auto-scale-lr'),
        ('mmsegmentation', '--cfg-options auto_scale_lr.enable=True'),
    ],
)
def test_learning_rate_and_schedule_are_scaled(folder, passed, fakes):
    target = ['c.py', 'none', '8', '--auto-scale-lr']
    output = run(SCRIPTS / folder / 'dist_train.sh', *target, **fakes)
    assert f'c.py {passed} --launcher' in output
    assert 'PRETRAINED=none ' in output
    environment = dict(fakes, FAKE_SCHEDULE='a.b=1 c.0.d=2,3', NNODES='2')
    output = run(SCRIPTS / folder / 'dist_train.sh', *target, **environment)
    assert f'c.py --cfg-options a.b=1 c.0.d=2,3 {passed} --launcher' in output
    # The number of processes on two machines, and in all with Slurm.
    assert 'c.py 16 --auto-scale-lr\n' in output
    output = run(SCRIPTS / folder / 'slurm_train.sh', *target, **environment)
    assert 'c.py 8 --auto-scale-lr\n' in output


@pytest.mark.parametrize(
    ('script', 'arguments', 'change', 'status', 'message'),
    [
        ('dist_train', 'c.py', {}, 2, 'usage: CONFIG CHECKPOINT GPUS'),
        ('slurm_train', 'q j c.py a.pth', {}, 2, "1 on a CPU), got 'c.py'"),
        ('dist_train', 'c.py a.pth x', {}, 2, "1 on a CPU), got 'x'"),
        ('dist_train', 'd.py a.pth 1', {}, 1, 'config d.py does not exist'),
        ('dist_train', 'c.py b.pth 1', {}, 1, 'b.pth does not exist'),
        ('dist_test', 'c.py none 1', {}, 2, "cannot test 'none'"),
        ('slurm_test', 'c.py b.pth 8', {}, 1, 'b.pth does not exist'),
        ('dist_train', 'c.py a.pth 1', dict(FAKE_HOST=''), 1, 'install.sh'),
        ('dist_train', 'c.py a.pth 2', dict(FAKE_CUDA='0'), 1, 'no CUDA dev'),
    ],
)
def test_wrong_arguments_are_named_in_one_line(
    script, arguments, change, status, message, fakes
):
    path = SCRIPTS / 'mmdetection' / f'{script}.sh'
    environment = fakes | change
    output = run(path, *arguments.split(), status=status, **environment)
    (line,) = output.splitlines()
    assert line.startswith(f'{script}.sh: ') and message in line


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A pre-trained checkpoint, and the weights of its backbone."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        state = MODELS.build(BACKBONE).state_dict()
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    weights = {f'backbone.{key}': value for key, value in state.items()}
    weights['neck.fc.weight'] = torch.ones(1)
    torch.save(dict(state_dict=weights, meta=dict(cfg=NORMALIZATION)), path)
    return path, state


def assert_weights_arrived(path, expected):
    """The learning rate is so small that only BN statistics change."""
    state = torch.load(path, weights_only=False)['state_dict']
    for key, value in expected.items():
        if 'running' not in key and 'num_batches' not in key:
            torch.testing.assert_close(state[f'backbone.{key}'], value)


def run_here(*command):
    """Run a script of a host in this process, which has the stack imported."""
    for kept in (MessageHub, MMLogger, Visualizer):
        kept._instance_dict.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(word) for word in command])
        patch.setenv('LOCAL_RANK', '0')
        runpy.run_path(sys.argv[0], run_name='__main__')


def train_here(script, *target, folder):
    """Run in this process what a script ends with."""
    # A Python that records the last command instead of running it.
    python = folder / 'python'
    python.write_text(
        '#!/usr/bin/env bash\n'
        f'[[ "$*" == *--launcher* ]] || exec {sys.executable} "$@"\n'
        f'printf "%s\\n" "$PRETRAINED" "$@" >{folder}/command\n'
    )
    python.chmod(0o755)
    run(script, *target, PATH=f'{folder}:{os.environ["PATH"]}')
    pretrained, *command = (folder / 'command').read_text().splitlines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PRETRAINED', pretrained)
        run_here(*command)


def evaluate(host, config, path, work_dir):
    """Run the host's tools/test.py; return the metrics."""
    package = Path(import_module(host).__file__).parent
    tool = package / '.mim/tools/test.py'
    run_here(tool, config, path, '--work-dir', work_dir)
    (report,) = work_dir.glob('*/*.json')
    return json.loads(report.read_text())


@pytest.mark.parametrize(
    'alone', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_detector_is_trained_and_tested(
    tmp_path, checkpoint, monkeypatch, alone
):
    pytest.importorskip('mmdet')
    from transfer_data.coco import write_coco

    path, state = checkpoint
    base = CONFIGS / 'mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py'
    config = tmp_path / 'detector.py'
    config.write_text(DETECTION.format(base=str(base)))
    monkeypatch.setenv('COCO_ROOT', str(write_coco(tmp_path / 'coco')))
    script = SCRIPTS / 'mmdetection/dist_train.sh'
    work_dir = tmp_path / 'work'
    target = [config, path, '1', '--work-dir', work_dir]
    if alone:
        run(script, *target)
    else:
        train_here(script, *target, folder=tmp_path)
    (log,) = work_dir.glob('*/*.log')
    assert 'matched: 120 of 120 tensors' in log.read_text()
    assert "unused: 'neck.' (1 key)" in log.read_text()
    trained = work_dir / 'epoch_1.pth'
    assert_weights_arrived(trained, state)
    metrics = evaluate('mmdet', config, trained, tmp_path / 'tested')
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics)


def test_segmentor_is_trained_and_tested(tmp_path, checkpoint, monkeypatch):
    pytest.importorskip('mmseg')
    from transfer_data.voc12aug import write_voc12aug

    path, state = checkpoint
    (base,) = (CONFIGS / 'mmsegmentation/voc12aug').glob('fcn_*.py')
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTATION.format(base=str(base)))
    monkeypatch.setenv('VOC12AUG_ROOT', str(write_voc12aug(tmp_path / 'voc')))
    script = SCRIPTS / 'mmsegmentation/dist_train.sh'
    work_dir = tmp_path / 'work'
    target = [config, path, '1', '--work-dir', work_dir, '--auto-scale-lr']
    train_here(script, *target, folder=tmp_path)
    # The config is for batches of 16: with two images a step, one iteration
    # becomes eight.
    trained = work_dir / 'iter_8.pth'
    assert_weights_arrived(trained, state)
    metrics = evaluate('mmseg', config, trained, tmp_path / 'tested')
    assert 'mIoU' in metrics
