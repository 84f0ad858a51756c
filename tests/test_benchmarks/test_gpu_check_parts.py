"""What the parts run, and how their results are read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

import mmunimoco  # noqa: F401
from benchmarks.gpu_check.demo_part import (
    launcher_env,
    mmpretrain_launcher,
    read_demo,
)
from benchmarks.gpu_check.environment import describe_commit
from benchmarks.gpu_check.plan import (
    CPU_LIMITS,
    CUDA_LIMITS,
    GPU_TESTS,
    NAMES,
    plan_parts,
)
from benchmarks.gpu_check.pytest_part import pytest_command, read_pytest
from benchmarks.gpu_check.step_part import read_step
from benchmarks.gpu_check.training_step import Case, measure_cases

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import pytest

def test_good(record_property):
    record_property('value_error', '1.5e-07')
    record_property('losses', '[1, 2]')

def test_bad():
    assert 1 + 1 == 3

@pytest.mark.skip(reason='needs two GPUs')
def test_skipped():
    pass

@pytest.fixture
def broken():
    raise ValueError('no data')

def test_error(broken):
    pass
"""


def test_report_of_pytest(tmp_path):
    path = tmp_path / 'test_something.py'
    path.write_text(TESTS)
    command = pytest_command('not gpu', (str(path),), tmp_path)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 1
    outcome = read_pytest(tmp_path)
    assert outcome.results['counts'] == dict(passed=1, failed=2, skipped=1)
    assert outcome.results['skip_reasons'] == {'needs two GPUs': 1}
    failures = outcome.results['failures']
    assert 'assert (1 + 1) == 3' in failures['test_something::test_bad']
    assert 'no data' in failures['test_something::test_error']
    assert outcome.results['measured'] == {
        'test_something::test_good': dict(value_error=1.5e-07, losses='[1, 2]')
    }
    assert outcome.faults == ['2 tests failed']


def test_no_tests_are_no_success(tmp_path):
    assert read_pytest(tmp_path).faults == ['pytest wrote no report']
    (tmp_path / 'junit.xml').write_text('<testsuites></testsuites>')
    assert read_pytest(tmp_path).faults == ['no test passed']


def write_run(folder, loss=2.5, knn=70.0, checkpoint=True):
    """What mmengine leaves behind."""
    logs = folder / 'run' / '20200101_000000' / 'vis_data'
    logs.mkdir(parents=True)
    step = dict(loss=loss, time=0.02, data_time=0.001, memory=300, step=10)
    lines = [step | dict(loss=3.0), step, {'knn/top1': knn, 'step': 1}]
    text = '\n'.join(map(json.dumps, lines))
    (logs / 'scalars.json').write_text(text)
    if checkpoint:
        (folder / 'run' / 'epoch_1.pth').touch()


def test_results_of_the_demo(tmp_path):
    write_run(tmp_path)
    outcome = read_demo(tmp_path)
    assert outcome.faults == []
    assert outcome.results == dict(
        loss_first=3.0,
        loss_last=2.5,
        knn_top1=70.0,
        milliseconds_per_step=20.0,
        milliseconds_for_data=1.0,
        memory_mib=300,
    )


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (dict(loss=float('nan')), 'a loss is not finite'),
        (dict(knn=12.0), 'kNN accuracy 12.0 % is near chance'),
        (dict(checkpoint=False), 'no checkpoint was written'),
    ],
)
def test_faults_of_the_demo(change, fault, tmp_path):
    assert 'no log' in read_demo(tmp_path).faults[0]
    write_run(tmp_path, **change)
    assert read_demo(tmp_path).faults == [fault]


def test_a_launcher_finds_this_python(tmp_path):
    env = os.environ | launcher_env(tmp_path / 'bin')
    code = 'import sys; print(sys.executable, sys.argv[1:])'
    command = ['bash', '-c', f'python -c "{code}" "a b"']
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == f"{sys.executable} ['a b']"
    assert 1024 <= int(env['PORT']) < 65536


def small_config():
    """A config of a narrow ResNet-18, as ``training_step`` takes it."""
    neck = dict(type='MoCoV2Neck', in_channels=64, hid_channels=8)
    return Config(
        dict(
            model=dict(
                type='UniMoCo',
                backbone=dict(
                    type='ResNet', depth=18, stem_channels=8, base_channels=8
                ),
                neck=neck | dict(out_channels=8),
                head=dict(type='UniMoCoHead', feat_dim=8, queue_len=16),
            ),
            data_preprocessor=dict(
                type='SelfSupDataPreprocessor', mean=[127.0] * 3, std=[60] * 3
            ),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)
            ),
            default_scope='mmpretrain',
        )
    )


def test_steps_are_measured(tmp_path):
    saved = []
    case = Case(4, warmup=1, repeats=3, image_size=32)
    (result,) = measure_cases(
        small_config(), [case], 'cpu', lambda cases: saved.append(len(cases))
    )
    assert saved == [1]
    assert result['status'] == 'passed'
    assert result['batch_size'] == 4 and result['precision'] == 'fp32'
    assert (
        0
        < result['milliseconds_min']
        <= result['milliseconds']
        <= result['milliseconds_max']
    )
    assert result['images_per_second'] == pytest.approx(
        4000 / result['milliseconds']
    )
    assert result['peak_memory_gib'] > 0.01 and result['loss_first'] > 0


def test_a_step_that_diverges_fails(tmp_path):
    cfg = small_config()
    cfg.optim_wrapper.optimizer.lr = 1e38
    case = Case(4, warmup=1, repeats=3, image_size=32)
    results = measure_cases(cfg, [case], 'cpu', lambda cases: None)
    assert results[0]['status'] == 'failed'
    assert results[0]['reason'] == 'a loss or a weight is not finite'
    (tmp_path / 'step.json').write_text(json.dumps(dict(cases=results)))
    assert read_step(tmp_path).faults == [
        'batch 4 fp32: a loss or a weight is not finite',
        'no case passed',
    ]


def test_a_case_that_raises_leaves_the_others_alone():
    cases = [
        Case(4, warmup=0, repeats=1, image_size=0),
        Case(4, warmup=0, repeats=1, image_size=32),
    ]
    results = measure_cases(small_config(), cases, 'cpu', lambda cases: None)
    assert [result['status'] for result in results] == ['failed', 'passed']
    assert results[0]['reason']


def test_plan_for_a_cpu(tmp_path):
    parts = plan_parts('cpu', ROOT, tmp_path)
    ran = [part.name for part in parts if part.command is not None]
    assert ran == ['tests-cpu', 'demo-cpu', 'step-cpu']
    skipped = {p.name: p.skip_reason for p in parts if p.command is None}
    assert skipped == dict.fromkeys(NAMES, 'no CUDA device')


def test_plan_for_a_gpu(tmp_path):
    parts = plan_parts('cuda', ROOT, tmp_path)
    assert tuple(part.name for part in parts) == NAMES
    commands = {part.name: part.command(tmp_path) for part in parts}
    assert commands['tests'][3:7] == ['-m', 'gpu', *GPU_TESTS]
    assert commands['demo'][1] == str(mmpretrain_launcher())
    assert '--amp' in commands['demo-amp'] and '--amp' not in commands['demo']
    for command in (commands['demo'], commands['step']):
        config = next(word for word in command if '/configs/' in word)
        assert Path(config).is_file()


def test_every_test_for_a_gpu_is_planned():
    # Written in two halves, so that this file is not found.
    mark = 'pytest.mark' + '.gpu'
    marked = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / 'tests').rglob('*.py'))
        if mark in path.read_text(encoding='utf-8')
    ]
    assert marked and all(path.startswith(GPU_TESTS) for path in marked)


def test_little_is_needed_beside_the_stack():
    """The command line and its tests import none of these."""
    missing = ('sklearn', 'joblib', 'hypothesis', 'timm', 'matplotlib.pyplot')
    code = (
        'import sys\n'
        f'sys.modules.update(dict.fromkeys({missing}))\n'
        'import pytest\n'
        'from benchmarks.gpu_check.__main__ import describe_versions\n'
        'assert describe_versions()["sklearn"] == "absent"\n'
        'sys.exit(pytest.main(["-q", "--collect-only", '
        f'"-p", "no:cacheprovider", *{GPU_TESTS}]))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        # pytest would load the plugin of hypothesis.
        env=os.environ | dict(PYTEST_DISABLE_PLUGIN_AUTOLOAD='1'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_parts_can_be_chosen(tmp_path):
    parts = plan_parts('cuda', ROOT, tmp_path, ('step',))
    reasons = [part.skip_reason for part in parts]
    assert reasons == ['not among --parts'] * 3 + ['']


def test_outside_a_checkout_it_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match='checkout'):
        plan_parts('cpu', tmp_path, tmp_path)


def test_all_fits_into_nine_minutes():
    # Leaves ten seconds for starting up.
    assert sum(CUDA_LIMITS.values()) <= 530
    assert sum(CPU_LIMITS.values()) <= 530


def test_a_copy_without_history_has_no_commit(tmp_path):
    assert describe_commit(tmp_path) == dict(commit=None, changed=None)


def run_script(*arguments, **env):
    return subprocess.run(
        ['bash', str(ROOT / 'tools' / 'gpu_check.sh'), *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
    )


def test_script_takes_a_python_that_has_the_packages(tmp_path):
    useless = tmp_path / 'useless'
    useless.write_text('#!/bin/sh\necho "No module named torch" >&2\nexit 1\n')
    useless.chmod(0o755)
    for name in ('python3', 'python'):
        (tmp_path / name).symlink_to(useless)
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    # The tests' own Python is given, for a checkout without .venv.
    done = run_script('--parts', 'none', PYTHON=sys.executable, PATH=path)
    assert done.returncode == 2
    assert "invalid choice: 'none'" in done.stderr


def test_script_names_all_that_a_python_lacks(tmp_path):
    # Isolated, without site-packages: nothing but the standard library.
    bare = tmp_path / 'bare'
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "$@"\n')
    bare.chmod(0o755)
    script = tmp_path / 'checkout' / 'tools' / 'gpu_check.sh'
    script.parent.mkdir(parents=True)
    script.write_text((ROOT / 'tools' / 'gpu_check.sh').read_text())
    for name in ('python3', 'python'):
        (tmp_path / name).symlink_to(bare)
    done = subprocess.run(
        ['bash', str(script)],
        env=dict(PATH=f'{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lacks = 'python3: it lacks torch, torchvision, mmengine, mmcv, mmpretrain'
    assert f'{lacks}, rich, pytest' in done.stderr


def test_script_without_a_python_says_what_to_do(tmp_path):
    # A copy of the script, in whose checkout there is no .venv.
    script = tmp_path / 'checkout' / 'tools' / 'gpu_check.sh'
    script.parent.mkdir(parents=True)
    script.write_text((ROOT / 'tools' / 'gpu_check.sh').read_text())
    for name in ('python3', 'python'):
        path = tmp_path / name
        path.write_text('#!/bin/sh\necho "No module named torch" >&2\nexit 1')
        path.chmod(0o755)
    done = subprocess.run(
        ['bash', str(script)],
        env=dict(PATH=f'{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert 'set PYTHON or PYTHONPATH' in done.stderr
    assert 'python3: No module named torch' in done.stderr
