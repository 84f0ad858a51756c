"""``--stack`` of tools/install.sh and tools/test.sh.

Nothing is installed: see fake_checkout.py.
"""

import pytest
from fake_checkout import FAKE_PYTHON, ROOT, Checkout, error_line


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture
def prepared(checkout):
    """A checkout with the environments, and without a compiler."""
    for stack in ('openmmlab', 'newest'):
        checkout.add_environment(f'.venv-{stack}')
    return checkout


@pytest.mark.parametrize('arguments', [['--stack', 'a'], ['--stack=a']])
def test_unknown_stack(checkout, arguments):
    line = error_line(checkout.run(*arguments))
    assert "unknown stack 'a': take openmmlab, onedl or newest" in line


def test_stack_without_a_name(checkout):
    assert 'no name after --stack' in error_line(checkout.run('--stack'))


@pytest.mark.parametrize('stack', ['openmmlab', 'newest'])
def test_other_stacks_are_not_put_into_the_active_environment(checkout, stack):
    line = error_line(checkout.run('--here', '--stack', stack))
    assert f'(.venv-{stack})' in line and '--here' in line


@pytest.mark.parametrize('version', ['3.9', '3.12'])
def test_python_without_a_wheel_of_the_old_torch(checkout, version):
    checkout.add_command('python3', FAKE_PYTHON)
    done = checkout.run('--stack', 'openmmlab', FAKE_VERSION=version)
    line = error_line(done)
    assert 'Python 3.10 to 3.11 is needed for the stack openmmlab' in line
    assert f'python3 is {version}' in line and 'PYTHON=' in line


def test_environment_with_a_python_too_new(prepared):
    done = prepared.run('--stack', 'openmmlab', FAKE_VERSION='3.12')
    line = error_line(done)
    assert '.venv-openmmlab has Python 3.12, but Python 3.10 to 3.11' in line
    assert not prepared.installs()


def test_newest_takes_any_python_that_is_new_enough(prepared):
    done = prepared.run('--stack', 'newest', FAKE_VERSION='3.14')
    assert done.returncode == 0, done.stderr
    # There is no lock that it could be too new for.
    assert 'Note:' not in done.stdout


def test_openmmlab_installs_its_own_lock_without_mmcv_ops(prepared):
    done = prepared.run('--stack', 'openmmlab', '--dev')
    assert done.returncode == 0, done.stderr
    torch, rest, project = prepared.installs()
    lock = f'-c {prepared.root}/requirements/lock-openmmlab.txt'
    assert lock in torch and lock in rest
    for name in ('runtime', 'openmmlab', 'tests'):
        assert f'/{name}.txt' in rest
    assert 'mmlab.txt' not in rest.replace('openmmlab.txt', '')
    assert 'transfer.txt' not in rest
    assert '--no-deps --editable' in project


def test_newest_has_no_pins_and_builds_mmcv_without_ops(prepared):
    done = prepared.run('--stack', 'newest', NOT_THERE='_ext[.]')
    assert done.returncode == 0, done.stderr
    torch, mmcv, rest, _ = prepared.installs()
    assert 'requirements/lock-newest.txt' in torch
    assert '--no-cache-dir --no-binary onedl-mmcv onedl-mmcv' in mmcv
    assert '/mmlab.txt' in rest and 'transfer.txt' not in rest


def test_newest_writes_down_what_it_has_come_to(prepared):
    environment = prepared.root / '.venv-newest'
    freeze = '    *freeze*) echo torch==9 ;;'
    (environment / 'bin/python').write_text(
        FAKE_PYTHON.replace('esac', f'{freeze}\nesac')
    )
    done = prepared.run('--stack', 'newest')
    assert done.returncode == 0, done.stderr
    releases = environment / 'mmunimoco-releases.txt'
    assert releases.read_text() == 'torch==9\n'


def test_second_run_has_nothing_to_do(prepared):
    arguments = ('--stack', 'openmmlab', '--dev')
    assert prepared.run(*arguments).returncode == 0
    done = prepared.run(*arguments)
    assert 'nothing to do' in done.stdout
    assert not prepared.pip_calls()
    # What one stack has says nothing of another.
    done = prepared.run('--stack', 'newest', '--dev')
    assert 'nothing to do' not in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'environment', 'passed_on'),
    [
        (['--stack', 'openmmlab', '-x', 'tests'], 'openmmlab', '-x tests'),
        (['-k', 'a', '--stack=newest'], 'newest', '-k a'),
        (['--stack', 'newest'], 'newest', '-n auto --maxprocesses 4'),
    ],
)
def test_tests_run_in_the_environment_of_the_stack(
    prepared, arguments, environment, passed_on
):
    for stack in ('openmmlab', 'newest'):
        python = prepared.root / f'.venv-{stack}/bin/python'
        note = f'#!/usr/bin/env bash\necho {stack}:"$*" >>"$CALLS"\n'
        python.write_text(FAKE_PYTHON.replace('#!/usr/bin/env bash\n', note))
    done = prepared.run(*arguments, script='test.sh')
    assert done.returncode == 0, done.stderr
    calls = prepared.calls.read_text()
    assert f'{environment}:-m pytest {passed_on}' in calls
    assert '/tests.txt' in calls


def test_tests_of_an_unknown_stack(prepared):
    done = prepared.run('--stack', script='test.sh')
    assert "unknown stack ''" in error_line(done)


def test_environments_are_ignored_by_git():
    assert '.venv-*/' in (ROOT / '.gitignore').read_text().splitlines()
