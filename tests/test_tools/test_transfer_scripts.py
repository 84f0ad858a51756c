"""tools/benchmarks/{mmdetection,mmsegmentation}/*.sh, run for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / 'tools/benchmarks'
CONFIGS = ROOT / 'configs/benchmarks'
HOSTS = dict(mmdetection='mmdet', mmsegmentation='mmseg')

# Stands for Python where nothing is to be started, and shows what would be.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    *find_spec*) [ -n "$STUB_TOOLS" ] && echo "$STUB_TOOLS" ;;
    *is_available*) [ "$STUB_CUDA" = 1 ] ;;
    *scale_schedule*) echo "$STUB_SCHEDULE"; echo "ASKED $*" >&2 ;;
    *) echo "RUN PRETRAINED=$PRETRAINED python $*" ;;
esac
"""
SRUN = '#!/usr/bin/env bash\necho "RUN PRETRAINED=$PRETRAINED srun $*"\n'

BACKBONE = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
NORMALIZATION = (
    'data_preprocessor = dict(mean=[123.675, 116.28, 103.53], '
    'std=[58.395, 57.12, 57.375], to_rgb=True)'
)
# What makes the shipped configs small.
DETECTION = """
_base_ = {base!r}
backbone = dict(depth={depth}, stem_channels=8, base_channels=8)
extractor = dict(out_channels=8)
model = dict(
    backbone=backbone,
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=extractor, mask_roi_extractor=extractor,
        bbox_head=dict(in_channels=8, conv_out_channels=8, fc_out_channels=8),
        mask_head=dict(in_channels=8, conv_out_channels=8)),
    # Untrained, it is not sure of anything.
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
    backbone=dict(depth={depth}, stem_channels=8, base_channels=8),
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


def run(*command, fails=False, **environment):
    """Run a script on the CPU; return its exit status and all it said."""
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
        timeout=900,
        check=False,
    )
    output = done.stdout + done.stderr
    assert bool(done.returncode) == fails, output[-4000:]
    return done.returncode, output


@pytest.fixture
def stubs(tmp_path):
    """Environment with a Python and a Slurm that only show their calls."""
    tools = tmp_path / 'host' / '.mim' / 'tools'
    tools.mkdir(parents=True)
    (tmp_path / 'bin').mkdir()
    for name, text in (('python', PYTHON), ('srun', SRUN)):
        path = tmp_path / 'bin' / name
        path.write_text(text)
        path.chmod(0o755)
    for name in ('train.py', 'test.py'):
        (tools / name).touch()
    for name in ('c.py', 'a.pth'):
        (tmp_path / name).touch()
    return dict(
        PATH=f'{tmp_path / "bin"}:{os.environ["PATH"]}',
        STUB_TOOLS=str(tmp_path / 'host'),
        STUB_CUDA='1',
        STUB_SCHEDULE='',
        PRETRAINED='',
    )


@pytest.mark.parametrize('folder', HOSTS)
def test_torchrun_starts_the_hosts_tools(folder, stubs, tmp_path):
    tools = f'{tmp_path}/host/.mim/tools'
    target = [tmp_path / 'c.py', os.path.relpath(tmp_path / 'a.pth'), '8']
    environment = dict(stubs, PORT='1', NNODES='2', NODE_RANK='1')
    environment['MASTER_ADDR'] = 'first'
    script = SCRIPTS / folder / 'dist_train.sh'
    _, output = run(script, *target, '--work-dir', 'a b', **environment)
    torchrun = (
        'python -m torch.distributed.run --nnodes=2 --node_rank=1 '
        '--master_addr=first --master_port=1 --nproc_per_node=8'
    )
    assert output.strip() == (
        f'RUN PRETRAINED={tmp_path}/a.pth {torchrun} {tools}/train.py '
        f'{tmp_path}/c.py --work-dir a b --launcher pytorch'
    )
    script = SCRIPTS / folder / 'dist_test.sh'
    _, output = run(script, *target, **environment)
    assert output.strip() == (
        f'RUN PRETRAINED= {torchrun} {tools}/test.py {tmp_path}/c.py '
        f'{tmp_path}/a.pth --launcher pytorch'
    )


@pytest.mark.parametrize('folder', HOSTS)
def test_slurm_starts_the_hosts_tools(folder, stubs, tmp_path):
    tools = f'{tmp_path}/host/.mim/tools'
    target = [tmp_path / 'c.py', tmp_path / 'a.pth']
    script = SCRIPTS / folder / 'slurm_train.sh'
    _, output = run(script, *target, '4', '--amp', **stubs)
    assert output.strip() == (
        f'RUN PRETRAINED={tmp_path}/a.pth srun --job-name=c '
        '--gres=gpu:4 --ntasks=4 --ntasks-per-node=4 --cpus-per-task=5 '
        f'--kill-on-bad-exit=1 python -u {tools}/train.py {tmp_path}/c.py '
        '--amp --launcher slurm'
    )
    script = SCRIPTS / folder / 'slurm_test.sh'
    environment = dict(stubs, PARTITION='queue', JOB_NAME='a job')
    environment.update(SRUN_ARGS='-t 1', CPUS_PER_TASK='3')
    _, output = run(script, *target, '16', **environment)
    assert 'srun --partition=queue --job-name=a job --gres=gpu:8 ' in output
    assert '--ntasks=16 --ntasks-per-node=8 --cpus-per-task=3' in output
    assert f'-t 1 python -u {tools}/test.py {tmp_path}/c.py ' in output
    assert 'a.pth --launcher slurm' in output and 'PRETRAINED= ' in output
    _, output = run(script, *target, '16', GPUS_PER_NODE='4', **stubs)
    assert '--gres=gpu:4 --ntasks=16 --ntasks-per-node=4 ' in output


@pytest.mark.parametrize(
    ('folder', 'passed'),
    [
        ('mmdetection', '--auto-scale-lr'),
        ('mmsegmentation', '--cfg-options auto_scale_lr.enable=True'),
    ],
)
def test_learning_rate_is_scaled_with_either_host(
    folder, passed, stubs, tmp_path
):
    target = [tmp_path / 'c.py', 'none', '8', '--auto-scale-lr']
    _, output = run(SCRIPTS / folder / 'dist_train.sh', *target, **stubs)
    assert f'c.py {passed} --launcher' in output
    assert 'PRETRAINED=none ' in output
    # Of a schedule in iterations that changes as well.
    environment = dict(stubs, STUB_SCHEDULE='a.b=1 c.0.d=2,3', NNODES='2')
    _, output = run(SCRIPTS / folder / 'dist_train.sh', *target, **environment)
    assert f'c.py --cfg-options a.b=1 c.0.d=2,3 {passed} --launcher' in output
    asked = f'{tmp_path}/c.py {{}} --auto-scale-lr\n'
    assert asked.format(16) in output
    _, output = run(
        SCRIPTS / folder / 'slurm_train.sh', *target, **environment
    )
    assert asked.format(8) in output


@pytest.mark.parametrize('folder', HOSTS)
@pytest.mark.parametrize(
    ('script', 'arguments', 'change', 'status', 'message'),
    [
        ('dist_train', 'c.py', {}, 2, 'usage: CONFIG CHECKPOINT GPUS'),
        ('slurm_test', 'c.py a.pth', {}, 2, 'usage: CONFIG CHECKPOINT GPUS'),
        ('slurm_train', 'q j c.py a.pth', {}, 2, "number of GPUs is '"),
        ('dist_train', 'c.py a.pth x', {}, 2, "number of GPUs is 'x'"),
        ('dist_train', 'd.py a.pth 1', {}, 1, 'config d.py does not exist'),
        ('dist_train', 'c.py b.pth 1', {}, 1, 'b.pth does not exist'),
        ('dist_test', 'c.py b.pth 1', {}, 1, 'b.pth does not exist'),
        ('dist_test', 'c.py none 1', {}, 2, "'none' cannot be tested"),
        ('slurm_train', 'c.py b.pth 8', {}, 1, 'b.pth does not exist'),
        ('dist_train', 'c.py a.pth 1', dict(STUB_TOOLS=''), 1, 'install.sh'),
        ('dist_train', 'c.py a.pth 2', dict(STUB_CUDA='0'), 1, 'no CUDA dev'),
    ],
)
def test_faults_are_said_in_one_line(
    folder, script, arguments, change, status, message, stubs, tmp_path
):
    path = SCRIPTS / folder / f'{script}.sh'
    words = [
        tmp_path / word if '.p' in word and word not in message else word
        for word in arguments.split()
    ]
    code, output = run(path, *words, fails=True, **(stubs | change))
    assert code == status
    (line,) = output.splitlines()
    assert line.startswith(f'{script}.sh: ') and message in line


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A checkpoint of the right kind, and its weights."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        state = MODELS.build(BACKBONE).state_dict()
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    save(path, state)
    return path, state


def save(path, state, prefix='backbone.'):
    state = {prefix + key: value for key, value in state.items()}
    state['neck.fc.weight'] = torch.ones(1)
    torch.save(dict(state_dict=state, meta=dict(cfg=NORMALIZATION)), path)


def detection(folder, depth=18):
    """A small detector on a tiny COCO; config and environment."""
    pytest.importorskip('mmdet')
    from transfer_data.coco import write_coco

    base = CONFIGS / 'mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py'
    config = folder / f'detector{depth}.py'
    config.write_text(DETECTION.format(base=str(base), depth=depth))
    data = folder / 'coco'
    return config, dict(
        COCO_ROOT=str(data if data.is_dir() else write_coco(data))
    )


def segmentation(folder, depth=18):
    """A small FCN on a tiny VOC; config and environment."""
    pytest.importorskip('mmseg')
    from transfer_data.voc12aug import write_voc12aug

    (base,) = (CONFIGS / 'mmsegmentation/voc12aug').glob('fcn_*.py')
    config = folder / f'segmentor{depth}.py'
    config.write_text(SEGMENTATION.format(base=str(base), depth=depth))
    data = folder / 'voc'
    return config, dict(
        VOC12AUG_ROOT=str(data if data.is_dir() else write_voc12aug(data))
    )


def assert_weights_arrived(path, expected):
    """Trained with a learning rate that moves nothing but BN statistics."""
    state = torch.load(path, weights_only=False)['state_dict']
    for key, value in expected.items():
        if 'running' not in key and 'num_batches' not in key:
            torch.testing.assert_close(state[f'backbone.{key}'], value)


@pytest.mark.slow
def test_a_detector_is_trained_and_tested(tmp_path, checkpoint):
    config, environment = detection(tmp_path)
    path, state = checkpoint
    folder = SCRIPTS / 'mmdetection'
    work_dir = tmp_path / 'work'
    target = ['1', '--work-dir', work_dir]
    train = [folder / 'dist_train.sh', config, path, *target]
    _, output = run(*train, **environment)
    assert f'Load report of ResNet: the checkpoint {path}' in output
    assert 'matched: 120 of 120 tensors' in output
    assert "unused: 'neck.' (1 key)" in output
    assert 'Normalisation is that of pre-training: mean [123.675' in output
    assert_weights_arrived(work_dir / 'epoch_1.pth', state)
    # The pre-trained checkpoint is none to test, the trained one is.
    test = [folder / 'dist_test.sh', config]
    _, output = run(*test, path, *target, fails=True, **environment)
    assert 'the checkpoint to test lacks' in output
    _, output = run(*test, work_dir / 'epoch_1.pth', *target, **environment)
    assert 'coco/bbox_mAP' in output and 'coco/segm_mAP' in output


@pytest.mark.slow
def test_a_detector_from_another_prefix_is_refused(tmp_path, checkpoint):
    config, environment = detection(tmp_path)
    save(tmp_path / 'b.pth', checkpoint[1], 'module.encoder_q.')
    script = SCRIPTS / 'mmdetection/dist_train.sh'
    target = [config, tmp_path / 'b.pth', '1', '--work-dir', tmp_path / 'w']
    _, output = run(script, *target, fails=True, **environment)
    assert "'module.encoder_q.' (120 keys), 'neck.' (1 key)" in output


@pytest.mark.slow
def test_a_segmentor_is_trained_and_tested(tmp_path, checkpoint):
    config, environment = segmentation(tmp_path)
    path, state = checkpoint
    folder = SCRIPTS / 'mmsegmentation'
    work_dir = tmp_path / 'work'
    target = ['1', '--work-dir', work_dir]
    train = [folder / 'dist_train.sh', config, path, *target]
    _, output = run(*train, '--auto-scale-lr', **environment)
    assert 'matched: 120 of 120 tensors' in output
    assert 'Normalisation is that of pre-training: mean [123.675' in output
    # Two images a step where the schedule is for sixteen.
    assert 'LR is set based on batch size of 16' in output
    assert 'the current batch size is 2' in output
    assert 'This schedule counts iterations' not in output
    trained = work_dir / 'iter_8.pth'
    assert_weights_arrived(trained, state)
    # The pre-trained checkpoint is none to test, the trained one is.
    test = [folder / 'dist_test.sh', config]
    _, output = run(*test, path, *target, fails=True, **environment)
    assert 'the checkpoint to test lacks' in output
    _, output = run(*test, trained, *target, **environment)
    count = len(torch.load(trained, weights_only=False)['state_dict'])
    assert f'test fills {count} of {count} tensors' in output
    assert 'mIoU' in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ('depth', 'cut', 'message'),
    [
        (34, False, 'of another architecture than the ResNet'),
        (18, True, 'is damaged or no checkpoint'),
    ],
)
def test_a_segmentor_from_a_bad_file_is_refused(
    tmp_path, checkpoint, depth, cut, message
):
    config, environment = segmentation(tmp_path, depth)
    content = checkpoint[0].read_bytes()
    path = tmp_path / 'b.pth'
    path.write_bytes(content[: -1000 if cut else None])
    script = SCRIPTS / 'mmsegmentation/dist_train.sh'
    target = [config, path, '1', '--work-dir', tmp_path / 'w']
    _, output = run(script, *target, fails=True, **environment)
    assert message in output
    if not cut:
        assert "in the file are 'backbone.' (120 keys)" in output
