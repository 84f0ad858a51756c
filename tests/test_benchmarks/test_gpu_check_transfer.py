"""What --transfer would run on a GPU, as far as a CPU can show it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from PIL import Image

from benchmarks.gpu_check import mmcv_ops, transfer_run
from benchmarks.gpu_check.transfer_part import (
    BUILD_LIMIT,
    CASE_LIMIT,
    plan_transfer,
    read_ops,
    read_steps,
)
from mmunimoco.utils.safe_load import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
CASES = transfer_run.CASES


def plan(device, folder):
    return plan_transfer(device, ROOT, folder, folder / 'mmcv', None)


def test_without_a_gpu_every_part_is_skipped(tmp_path):
    parts = plan('cpu', tmp_path)
    names = ['mmcv-ops', 'r50-c4', 'r50-fpn', 'fcn', 'upernet']
    assert [part.name for part in parts] == names
    for part in parts:
        assert part.command is None
        assert part.skip_reason == 'no CUDA device'


def test_with_a_gpu_the_built_mmcv_comes_first(tmp_path):
    build, *runs = plan('cuda', tmp_path)
    command = build.command(tmp_path)
    assert command[command.index('--target') + 1] == str(tmp_path / 'mmcv')
    for part in runs:
        path = part.env['PYTHONPATH'].split(os.pathsep)
        assert path[:2] == [str(tmp_path / 'mmcv'), str(ROOT / 'tests')]
        assert int(part.env['PORT'])
        assert part.command(tmp_path)[-2:] == [part.name, str(tmp_path)]


def test_all_fits_into_one_call():
    assert BUILD_LIMIT + len(CASES) * CASE_LIMIT <= 530


def test_mmcv_is_compiled_for_one_gpu_with_all_cores(tmp_path):
    environment = mmcv_ops.build_environment((9, 0))
    assert environment['TORCH_CUDA_ARCH_LIST'] == '9.0'
    assert environment['FORCE_CUDA'] == environment['MMCV_WITH_OPS'] == '1'
    assert int(environment['MAX_JOBS']) >= 1
    command = mmcv_ops.build_command('mmcv.tar.gz', tmp_path)
    assert command[-3:] == ['--target', str(tmp_path), 'mmcv.tar.gz']
    assert '--no-deps' in command


def test_the_probe_calls_an_op_of_mmcv():
    pytest.importorskip('mmcv.ops')
    code = mmcv_ops.PROBE.replace('.cuda()', '')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize('name', CASES)
def test_ten_steps_of_the_shipped_config(name):
    case = CASES[name]
    pytest.importorskip('mmdet' if 'det' in case.folder else 'mmseg')
    shipped = Config.fromfile(transfer_run.config_of(case))
    options = transfer_run.options_of(case)
    cfg = Config.fromfile(transfer_run.config_of(case))
    cfg.merge_from_dict(dict(option.split('=') for option in options))
    # Nothing is added by a misspelt name, and no image is made smaller.
    assert set(cfg) == set(shipped)
    assert set(cfg.train_cfg) | {'val_begin'} == set(shipped.train_cfg) | {
        'val_begin'
    }
    assert cfg.train_dataloader == shipped.train_dataloader
    if case.data == 'coco':
        images = 2 * transfer_run.STEPS
        assert images / cfg.train_dataloader.batch_size == transfer_run.STEPS


@pytest.mark.parametrize('name', ['r50-fpn', 'fcn', 'upernet'])
def test_a_run_is_started_as_users_do(name, tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    calls = []

    def record(command, env):
        calls.append((command, env))
        return SimpleNamespace(returncode=7)

    monkeypatch.setattr(transfer_run.subprocess, 'run', record)
    monkeypatch.setattr(sys, 'argv', ['run', name, str(tmp_path)])
    assert transfer_run.main() == 7
    ((command, env),) = calls
    assert Path(command[1]).is_file() and Path(command[2]).is_file()
    state = read_checkpoint(command[3])['state_dict']
    assert state['backbone.layer4.2.conv3.weight'].shape[0] == 2048
    data = Path(env[f'{CASES[name].data.upper()}_ROOT'])
    sizes = {Image.open(path).size for path in data.rglob('*.jpg')}
    assert min(height for _, height in sizes) >= 375


def write_log(folder, losses):
    logs = folder / 'run' / 'time' / 'vis_data'
    logs.mkdir(parents=True)
    lines = [
        dict(loss=loss, time=0.1 * (i + 1), data_time=0.01, memory=1000 + i)
        for i, loss in enumerate(losses)
    ]
    (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))


def test_results_of_ten_steps(tmp_path):
    case = CASES['fcn']
    assert 'no log' in read_steps(tmp_path, case).faults[0]
    write_log(tmp_path, [3.0 - 0.1 * i for i in range(10)])
    outcome = read_steps(tmp_path, case)
    assert outcome.faults == []
    results = outcome.results
    assert results['losses'][0] == 3.0 and len(results['losses']) == 10
    assert results['milliseconds_median'] == pytest.approx(800)
    assert results['memory_mib'] == 1009
    assert outcome.summary == '800 ms, 1.0 GiB, loss 3.00 to 2.10'


@pytest.mark.parametrize(
    ('losses', 'fault'),
    [
        ([1.0] * 9, '9 of 10 steps were logged'),
        ([1.0] * 9 + [float('nan')], 'a loss is not finite'),
    ],
)
def test_faults_of_ten_steps(losses, fault, tmp_path):
    write_log(tmp_path, losses)
    assert read_steps(tmp_path, CASES['fcn']).faults == [fault]


def test_results_of_the_build(tmp_path):
    assert read_ops(tmp_path).faults == ['mmcv was not built']
    path = tmp_path / 'ops.json'
    path.write_text(json.dumps(dict(mmcv_and_cuda=None)))
    assert read_ops(tmp_path).faults == ['its ops do not run on the GPU']
    path.write_text(json.dumps(dict(mmcv_and_cuda='2.3.6 12.8')))
    outcome = read_ops(tmp_path)
    assert (outcome.faults, outcome.summary) == ([], 'mmcv, CUDA: 2.3.6 12.8')
