"""tools/train.py, tools/test.py and the shell scripts, run for real."""

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import mmengine
import mmpretrain
import pytest
import torch
from image_folders import FEATURES, NARROW_RESNET, write_image_folder

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'
THEIR_TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'

CONFIG = """
custom_imports = dict(imports=['mmunimoco'], allow_failed_imports=False)
default_scope = 'mmpretrain'
data = {data!r}
model = dict(
    type='UniMoCo',
    backbone={backbone!r},
    neck=dict(type='MoCoV2Neck', in_channels={features},
              hid_channels=16, out_channels=8, with_avg_pool=True),
    head=dict(type='UniMoCoHead', feat_dim=8, queue_len=12))
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
view = [dict(type='RandomResizedCrop', scale=32)]
load = dict(type='LoadImageFromFile')
pack = dict(type='PackInputs')
loader = dict(batch_size=4, num_workers=1,
              sampler=dict(type='DefaultSampler', shuffle=False))
train_dataloader = dict(
    batch_size=4, num_workers=1, drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='PartialLabels', label_ratio=0.5, dataset=dict(
        type='CustomDataset', data_root=data + '/train', pipeline=[
            load, dict(type='MultiView', num_views=2, transforms=[view]),
            pack])))
bank = dict(loader, dataset=dict(
    type='CustomDataset', data_root=data + '/train', pipeline=[load, pack]))
val_dataloader = dict(loader, dataset=dict(
    type='CustomDataset', data_root=data + '/val', pipeline=[load, pack]))
test_dataloader = val_dataloader
val_cfg = dict(type='KNNValLoop', bank_dataloader=bank, k=(3, 5))
test_cfg = dict(type='KNNTestLoop', bank_dataloader=bank, k=(3, 5))
val_evaluator = dict(type='Accuracy', topk=(1, 2), prefix='knn')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.03, momentum=0.9))
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, save_best='knn/top1'))
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A config that pre-trains a narrow ResNet-18 on 21 tiny images."""
    folder = tmp_path_factory.mktemp('tools')
    data = folder / 'data'
    write_image_folder(data / 'train', per_class=7)
    write_image_folder(data / 'val', per_class=5, seed=1)
    path = folder / 'tiny.py'
    text = CONFIG.format(
        data=str(data), backbone=NARROW_RESNET, features=FEATURES
    )
    path.write_text(text)
    return path


def run(*command, fails=False, **environment):
    """Run a command on the CPU with this interpreter first on the path."""
    environment = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'CUDA_VISIBLE_DEVICES': '',
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': str(ROOT),
        **environment,
    }
    result = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = result.stdout + result.stderr
    assert (result.returncode != 0) == fails, output[-4000:]
    return output


@pytest.fixture
def call(monkeypatch):
    """Run a tool in this process: starting one takes longer than the run."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)

    def call(path, *arguments):
        command = [str(part) for part in (path, *arguments)]
        monkeypatch.setattr(sys, 'argv', command)
        runpy.run_path(command[0], run_name='__main__')

    return call


def scalars(work_dir):
    """All that was logged, as one dictionary a line."""
    paths = Path(work_dir).glob('*/vis_data/scalars.json')
    lines = ''.join(path.read_text() for path in sorted(paths)).splitlines()
    return [json.loads(line) for line in lines]


def knn(metrics):
    return {k: v for k, v in metrics.items() if k.startswith('knn/')}


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])


@pytest.fixture(scope='module')
def trained(config):
    """Work folder of two epochs with tools/train.py."""
    work_dir = config.parent / 'trained'
    run(sys.executable, TOOLS / 'train.py', config, '--work-dir', work_dir)
    return work_dir


@pytest.fixture(scope='module')
def trained_by_two(config):
    """Work folder of two epochs with tools/dist_train.sh, two processes."""
    work_dir = config.parent / 'trained_by_two'
    output = run(
        'bash',
        TOOLS / 'dist_train.sh',
        config,
        2,
        '--work-dir',
        work_dir,
        '--cfg-options',
        'sync_bn=torch',
        PORT=free_port(),
    )
    assert 'SyncBN is removed' in output
    return work_dir


def test_train_validates_by_knn_and_keeps_the_best(trained):
    lines = [line for line in scalars(trained) if 'knn/top1' in line]
    assert len(lines) == 2
    for line in lines:
        names = {'knn/top1', 'knn/top2', 'knn/top1_k5', 'knn/top2_k5'}
        assert names <= set(line)
    (best,) = trained.glob('best_knn_top1_epoch_*.pth')
    best_epoch = 1 + max(range(2), key=lambda i: lines[i]['knn/top1'])
    assert best.stem.endswith(f'_{best_epoch}')


@pytest.mark.parametrize('processes', [1, 2])
def test_test_repeats_the_last_validation(config, trained, processes, call):
    """The kNN of the checkpoint equals what was logged when it was written."""
    logged = [knn(line) for line in scalars(trained) if 'knn/top1' in line]
    out = config.parent / f'metrics_{processes}.json'
    command = ['--out', out, '--out-item', 'metrics']
    command += ['--work-dir', config.parent / f'tested_{processes}']
    target = [config, trained / 'epoch_2.pth']
    if processes == 1:
        call(TOOLS / 'test.py', *target, *command)
    else:
        script = TOOLS / 'dist_test.sh'
        run('bash', script, *target, processes, *command, PORT=free_port())
    assert knn(json.loads(out.read_text())) == pytest.approx(logged[-1])


def test_two_processes_train_one_model(config, trained_by_two):
    """Both ranks shared every step: 21 images, 2 x 4 a step, 2 a epoch."""
    state = torch.load(trained_by_two / 'epoch_2.pth', weights_only=False)
    assert state['meta']['iter'] == 4
    assert int(state['state_dict']['head.queue_ptr']) == 4 * 8 % 12
    log = next(trained_by_two.glob('*/*.log')).read_text()
    assert 'kNN bank: 21 labeled samples\n' in log
    assert 'MMDistributedDataParallel' in log or 'GPU number: 2' in log


def test_test_writes_predictions(config, trained, call):
    out = config.parent / 'predictions.pkl'
    call(
        TOOLS / 'test.py',
        config,
        trained / 'epoch_2.pth',
        '--out',
        out,
        '--work-dir',
        config.parent / 'predicted',
        '--amp',
    )
    predictions = mmengine.load(out)
    assert len(predictions) == 15
    assert predictions[0]['pred_score'].shape == (3,)


def test_resume_continues(config, trained_by_two, call):
    call(
        TOOLS / 'train.py',
        config,
        '--work-dir',
        trained_by_two,
        '--resume',
        '--no-validate',
        '--cfg-options',
        'train_cfg.max_epochs=3',
        'train_dataloader.num_workers=0',
    )
    state = torch.load(trained_by_two / 'epoch_3.pth', weights_only=False)
    assert state['meta']['epoch'] == 3


def test_mmpretrains_train_runs_our_config(config):
    work_dir = config.parent / 'theirs'
    run(
        sys.executable,
        THEIR_TOOLS / 'train.py',
        config,
        '--work-dir',
        work_dir,
    )
    assert (work_dir / 'epoch_2.pth').is_file()
    assert any('knn/top1' in line for line in scalars(work_dir))


def test_mmpretrains_test_repeats_it(config, trained, call):
    out = config.parent / 'metrics_theirs.json'
    call(
        THEIR_TOOLS / 'test.py',
        config,
        trained / 'epoch_2.pth',
        *('--out', out, '--out-item', 'metrics'),
        *('--work-dir', config.parent / 'tested_theirs'),
    )
    logged = [knn(line) for line in scalars(trained) if 'knn/top1' in line]
    assert knn(json.loads(out.read_text())) == pytest.approx(logged[-1])


def test_checkpoint_that_does_not_fit_is_refused(config, call):
    path = config.parent / 'other.pth'
    torch.save({'encoder_q.conv1.weight': torch.zeros(1)}, path)
    work_dir = config.parent / 'refused'
    with pytest.raises(ValueError, match=r"'encoder_q\.' \(1 key\)"):
        call(TOOLS / 'test.py', config, path, '--work-dir', work_dir)


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh']
)
def test_scripts_say_how_to_call_them(script):
    assert 'usage:' in run('bash', TOOLS / script, 'config.py', fails=True)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('train nowhere.py 2', 'the config nowhere.py does not exist'),
        ('train tiny.py two', "the number of processes is 'two'"),
        ('train tiny.py --amp', "the number of processes is '--amp'"),
        ('test nowhere.py a.pth 1', 'the config nowhere.py does not exist'),
        ('test tiny.py a.pth 0', "the number of processes is '0'"),
        ('test tiny.py a.pth 1', 'the checkpoint a.pth does not exist'),
    ],
)
def test_scripts_name_a_fault_in_one_line(
    config, monkeypatch, arguments, message
):
    monkeypatch.chdir(config.parent)
    task, *rest = arguments.split()
    script = TOOLS / f'dist_{task}.sh'
    (line,) = run('bash', script, *rest, fails=True).splitlines()
    assert line.startswith(f'dist_{task}.sh: ') and message in line


def test_scripts_start_torchrun_in_the_order_of_mmpretrain(config, tmp_path):
    """A stand-in for Python shows what would be run."""
    python = tmp_path / 'python'
    python.write_text(
        '#!/usr/bin/env bash\n'
        'echo "$TORCH_DISABLE_SHARE_RDZV_TCP_STORE PYTHON $*"\n'
    )
    python.chmod(0o755)
    environment = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', PORT='7')
    url = 'https://example.org/a.pth'
    for task, target in (('train', [config]), ('test', [config, url])):
        script = TOOLS / f'dist_{task}.sh'
        output = run('bash', script, *target, 8, '--amp', **environment)
        words = ' '.join(map(str, target))
        assert '--master_port=7 --nproc_per_node=8' in output
        assert output.strip().endswith(
            f'{task}.py {words} --launcher pytorch --amp'
        )
    # A rendezvous that can be repeated.
    script = TOOLS / 'dist_train.sh'
    output = run('bash', script, config, 8, MAX_RESTARTS='3', **environment)
    assert output.startswith('1 PYTHON') and '--max_restarts=3' in output
    assert '--rdzv_backend=c10d --rdzv_endpoint=127.0.0.1:7 ' in output
    assert '--master_port' not in output


def test_slurm_goes_on_after_preemption(tmp_path, config):
    """Stand-ins: a job that asks to be requeued once; a batch job of it."""
    srun = tmp_path / 'srun'
    srun.write_text(
        '#!/usr/bin/env bash\necho "SRUN $*"\n'
        '[[ "$*" == *--resume* ]] || exit 75\n'
    )
    for name in ('sbatch', 'scontrol'):
        (tmp_path / name).write_text(
            f'#!/usr/bin/env bash\necho "{name} $*"\n'
        )
    for name in ('srun', 'sbatch', 'scontrol'):
        (tmp_path / name).chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'
    script = ['bash', TOOLS / 'slurm_train.sh', 'queue', 'name', config]
    output = run(*script, tmp_path, PATH=path)
    assert output.count('SRUN') == 2 and '--launcher=slurm --resume' in output
    output = run(*script, tmp_path, PATH=path, SLURM_JOB_ID='7')
    assert 'scontrol requeue 7' in output and output.count('SRUN') == 1
    output = run(*script, tmp_path, PATH=path, BATCH='1', GRACE='60')
    assert '--signal=TERM@60 --requeue' in output and 'SRUN' not in output
    assert f'exec bash {TOOLS}/slurm_train.sh queue name {config}' in output


def test_slurm_starts_train(tmp_path, config):
    """A stand-in for srun shows what would be run."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/usr/bin/env bash\necho "SRUN $*"\n')
    srun.chmod(0o755)
    output = run(
        'bash',
        TOOLS / 'slurm_train.sh',
        *('queue', 'name', config, tmp_path, '--amp'),
        GPUS='4',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
    )
    assert f'{TOOLS}/train.py {config} --work-dir={tmp_path}' in output
    assert '--launcher=slurm --amp' in output
    assert '--gres=gpu:4 --ntasks=4 --ntasks-per-node=4 ' in output
