"""dist_train.sh, dist_test.sh and slurm_train.sh with fake commands."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
ECHO = '#!/usr/bin/env bash\necho "$(basename "$0")" "$@"\n'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a script in a folder with a config and fake commands."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name in ('python', 'srun', 'sbatch', 'scontrol'):
        (folder / name).write_text(ECHO)
        (folder / name).chmod(0o755)
    (tmp_path / 'c.py').touch()
    monkeypatch.chdir(tmp_path)

    def run(script, arguments, fails=False, tools=TOOLS, **environment):
        done = subprocess.run(
            ['bash', tools / script, *arguments.split()],
            env={
                **os.environ,
                'PATH': f'{folder}:{os.environ["PATH"]}',
                **environment,
            },
            capture_output=True,
            text=True,
        )
        output = done.stdout + done.stderr
        assert bool(done.returncode) == fails, output
        return output

    return run


@pytest.mark.parametrize(
    ('script', 'arguments', 'message'),
    [
        ('dist_train.sh', 'c.py', 'usage: CONFIG PROCESSES'),
        ('dist_train.sh', 'd.py 2', 'config d.py does not exist'),
        ('dist_train.sh', 'c.py two', "must be 1 or more, got 'two'"),
        ('dist_train.sh', 'c.py --amp', "must be 1 or more, got '--amp'"),
        ('dist_test.sh', 'c.py a.pth', 'usage: CONFIG CHECKPOINT PROCESSES'),
        ('dist_test.sh', 'c.py a.pth 0', "must be 1 or more, got '0'"),
        ('dist_test.sh', 'c.py a.pth 1', 'checkpoint a.pth does not exist'),
        ('slurm_train.sh', 'queue name c.py', 'usage: '),
    ],
)
def test_wrong_arguments_are_named_in_one_line(
    run, script, arguments, message
):
    (line,) = run(script, arguments, fails=True).splitlines()
    assert script in line and message in line


def test_torchrun_starts_the_tools(run):
    output = run('dist_train.sh', 'c.py 8 --amp', PORT='7')
    assert '--master_port=7 --nproc_per_node=8' in output
    assert output.endswith('train.py c.py --launcher pytorch --amp\n')
    url = 'https://example.org/a.pth'
    output = run('dist_test.sh', f'c.py {url} 8 --tta', NNODES='2')
    assert '--nnodes=2 --node_rank=0' in output
    assert output.endswith(f'test.py c.py {url} --launcher pytorch --tta\n')


def test_restarts_need_a_rendezvous_that_can_be_repeated(run):
    output = run('dist_train.sh', 'c.py 8', MAX_RESTARTS='3', PORT='7')
    assert '--max_restarts=3 --rdzv_backend=c10d' in output
    assert '--rdzv_endpoint=127.0.0.1:7 ' in output
    assert '--master_port' not in output


def test_slurm_starts_train(run):
    arguments = 'queue name c.py work --amp'
    output = run('slurm_train.sh', arguments, GPUS='4', SRUN_ARGS='-t 1')
    assert 'srun -p queue --job-name=name --gres=gpu:4 --ntasks=4 ' in output
    assert '--ntasks-per-node=4 --cpus-per-task=5 --signal=TERM@120' in output
    assert f'-t 1 python -u {TOOLS}/train.py c.py --work-dir=work' in output
    assert '--launcher=slurm --amp\n' in output


def test_slurm_resumes_after_preemption(run, tmp_path):
    srun = tmp_path / 'bin/srun'
    srun.write_text(f'{ECHO}[[ "$*" == *--resume* ]] || exit 75\n')
    arguments = 'queue name c.py work'
    output = run('slurm_train.sh', arguments)
    assert '--launcher=slurm --resume\n' in output
    output = run('slurm_train.sh', arguments, SLURM_JOB_ID='7')
    assert 'scontrol requeue 7\n' in output and '--resume' not in output
    output = run('slurm_train.sh', arguments, BATCH='1', GRACE='60')
    assert '--signal=TERM@60 --requeue --open-mode=append --wrap' in output
    wrapped = output.partition('--wrap ')[2]
    assert shlex.split(wrapped) == [
        *('exec', 'bash', f'{TOOLS}/slurm_train.sh'),
        *('queue', 'name', 'c.py', 'work'),
    ]


def test_batch_job_keeps_words_for_any_shell(run):
    """Slurm gives it to /bin/sh; in the C locale %q writes $'...'."""
    word = 'it\'s_"$HOME"_\u00e9\\n'
    output = run(
        'slurm_train.sh',
        f'queue name c.py work {word}',
        BATCH='1',
        LC_ALL='C',
    )
    wrapped = output.partition('--wrap exec bash ')[2].strip()
    shell = ['sh', '-c', f'printf "%s\n" {wrapped}']
    said = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == word


def test_cdpath_leads_nowhere(run, tmp_path, monkeypatch):
    """A user's CDPATH makes cd print, and go to folders of the same name."""
    (tmp_path / 'other/tools/misc').mkdir(parents=True)
    monkeypatch.chdir(TOOLS.parent)
    config = tmp_path / 'c.py'
    output = run(
        *('dist_train.sh', f'{config} 2'),
        tools=Path('tools'),
        CDPATH=str(tmp_path / 'other'),
    )
    assert f' {TOOLS}/train.py {config} ' in output
