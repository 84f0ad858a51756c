"""tools/train.py, tools/test.py and their launch scripts."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import mmengine
import mmpretrain
import pytest
import torch
from exact_runs import newest_log, run_processes
from image_folders import FEATURES, NARROW_RESNET, write_image_folder
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

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
loader = dict(batch_size=4, num_workers=0,
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
custom_hooks = [dict(type='StepOptionsHook', channels_last=True)]
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


def call(path, *arguments):
    """Run a tool in this process: importing the stack takes longer."""
    for kept in (MessageHub, MMLogger, Visualizer):
        kept._instance_dict.clear()
    command = [str(part) for part in (path, *arguments)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', command)
        runpy.run_path(command[0], run_name='__main__')


def scalars(work_dir):
    """All logged values, one dictionary per line."""
    paths = Path(work_dir).glob('*/vis_data/scalars.json')
    lines = ''.join(path.read_text() for path in sorted(paths)).splitlines()
    return [json.loads(line) for line in lines]


def knn(metrics):
    return {k: v for k, v in metrics.items() if k.startswith('knn/')}


@pytest.fixture(scope='module')
def trained(config):
    """Work folder of two epochs with tools/train.py."""
    work_dir = config.parent / 'trained'
    call(TOOLS / 'train.py', config, '--work-dir', work_dir)
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


@pytest.mark.parametrize('tools', [TOOLS, THEIR_TOOLS])
def test_test_repeats_the_last_validation(config, trained, tools):
    """The kNN of a checkpoint is what training logged for it."""
    out = config.parent / 'metrics.json'
    call(
        tools / 'test.py',
        config,
        trained / 'epoch_2.pth',
        *('--out', out, '--out-item', 'metrics'),
        *('--work-dir', config.parent / 'tested'),
    )
    logged = [knn(line) for line in scalars(trained) if 'knn/top1' in line]
    assert knn(json.loads(out.read_text())) == pytest.approx(logged[-1])


def test_none_is_the_model_before_its_training(config, monkeypatch):
    states = []
    initialise = Runner._init_model_weights

    def record(runner):
        initialise(runner)
        state = runner.model.state_dict()
        states.append({key: value.clone() for key, value in state.items()})

    monkeypatch.setattr(Runner, '_init_model_weights', record)
    folder = config.parent
    call(
        *(TOOLS / 'train.py', config, '--no-validate'),
        *('--work-dir', folder / 'one_epoch'),
        *('--cfg-options', 'train_cfg.max_epochs=1'),
    )
    call(
        *(TOOLS / 'test.py', config, 'none'),
        *('--work-dir', folder / 'untrained'),
    )
    trained, tested = states
    for key, value in trained.items():
        assert torch.equal(value, tested[key]), key


def test_test_writes_predictions(config, trained):
    out = config.parent / 'predictions.pkl'
    call(
        TOOLS / 'test.py',
        config,
        trained / 'epoch_2.pth',
        *('--out', out, '--work-dir', config.parent / 'predicted', '--amp'),
    )
    predictions = mmengine.load(out)
    assert len(predictions) == 15
    assert predictions[0]['pred_score'].shape == (3,)


@pytest.mark.parametrize('script', ['train.py', 'mmunimoco'])
def test_waiting_threads_sleep(script):
    """As OpenMP, which torch has loaded by then, says itself."""
    shown = subprocess.run(
        [sys.executable, TOOLS / script, '--help'],
        env=os.environ | dict(OMP_DISPLAY_ENV='TRUE', PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown.stderr
    assert 'OneDL' not in shown.stdout and 'usage: ' in shown.stdout


@pytest.mark.parametrize('policy', [None, 'ACTIVE'])
@pytest.mark.parametrize(
    'script', ['tools/train.py', 'tools/test.py', 'tools/mmunimoco']
)
def test_the_policy_of_the_user_is_kept(script, policy, monkeypatch):
    monkeypatch.setenv('OMP_WAIT_POLICY', policy or '')
    if policy is None:
        monkeypatch.delenv('OMP_WAIT_POLICY')
    runpy.run_path(str(ROOT / script), run_name='imported')
    assert os.environ['OMP_WAIT_POLICY'] == (policy or 'PASSIVE')


def test_out_item_needs_out(config):
    with pytest.raises(ValueError, match='--out-item pred needs --out'):
        call(TOOLS / 'test.py', config, 'a.pth', '--out-item', 'pred')


def test_several_processes_train_one_model_that_one_resumes(config):
    """Two ranks share each step: 21 images, 2 x 4 a step, 2 steps an epoch."""
    work_dir = config.parent / 'trained_by_two'
    codes = run_processes(
        *(2, TOOLS / 'train.py', config, '--work-dir', work_dir),
        *('--cfg-options', 'sync_bn=torch'),
    )
    assert codes == [0, 0]  # SyncBN, which no CPU runs, was removed
    assert 'kNN bank: 21 labeled samples\n' in newest_log(work_dir)
    state = torch.load(work_dir / 'epoch_2.pth', weights_only=False)
    assert state['meta']['iter'] == 4
    assert int(state['state_dict']['head.queue_ptr']) == 4 * 8 % 12
    call(
        TOOLS / 'train.py',
        config,
        *('--work-dir', work_dir, '--resume', '--no-validate'),
        *('--extend-to', '3'),
        *('--cfg-options', 'train_dataloader.num_workers=0'),
    )
    state = torch.load(work_dir / 'epoch_3.pth', weights_only=False)
    assert state['meta']['epoch'] == 3


def test_checkpoint_that_does_not_fit_is_refused(config):
    path = config.parent / 'other.pth'
    torch.save({'encoder_q.conv1.weight': torch.zeros(1)}, path)
    work_dir = config.parent / 'refused'
    with pytest.raises(ValueError, match=r"'encoder_q\.' \(1 key\)"):
        call(TOOLS / 'test.py', config, path, '--work-dir', work_dir)
