"""Decisions of tools/install.sh and test.sh in a fake checkout."""

import os
import shutil

import pytest
from fake_checkout import FAKE_PYTHON, ROOT, Checkout, error_line, write_script

FULL_DISK = """\
#!/usr/bin/env bash
printf 'a b c d\\n- - - 2097152\\n'
"""


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture
def prepared(checkout):
    """A checkout with the environments of all stacks and a compiler."""
    for stack in ('', '-openmmlab', '-newest'):
        checkout.add_environment(f'.venv{stack}')
    checkout.add_command('c++', '#!/usr/bin/env bash\n')
    return checkout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--fast'], 'unknown option --fast'),
        (['--stack'], '--stack needs a name'),
        (['--stack=a'], "unknown stack 'a': use openmmlab, onedl or newest"),
        (['--here', '--stack', 'newest'], 'own environment (.venv-newest)'),
    ],
)
def test_wrong_options(checkout, arguments, message):
    assert message in error_line(checkout.run(*arguments))


def test_help_works_without_python(checkout):
    done = checkout.run('--help')
    assert done.returncode == 0 and '--no-transfer' in done.stdout


@pytest.mark.parametrize(
    ('version', 'stack', 'message'),
    [
        ('', 'onedl', 'Python 3.10 or newer is needed, none was found'),
        ('2.7', 'onedl', 'Python 3.10 or newer is needed, python3 is 2.7'),
        ('3.9', 'onedl', 'Python 3.10 or newer is needed, python3 is 3.9'),
        ('3.12', 'openmmlab', 'openmmlab needs Python 3.10 to 3.11, python3'),
    ],
)
def test_no_supported_python(checkout, version, stack, message):
    if version:
        checkout.add_command('python3', FAKE_PYTHON)
    done = checkout.run('--stack', stack, FAKE_VERSION=version)
    line = error_line(done)
    assert message in line and 'PYTHON=/path/to/python3.11' in line


@pytest.mark.parametrize(
    ('version', 'stack', 'fails'),
    [
        ('3.9', 'onedl', True),
        ('3.10', 'onedl', False),
        ('3.14', 'onedl', False),
        ('3.14', 'newest', False),
        ('3.12', 'openmmlab', True),
    ],
)
def test_python_of_an_existing_environment(prepared, version, stack, fails):
    done = prepared.run('--stack', stack, FAKE_VERSION=version)
    if fails:
        line = error_line(done)
        assert f'has Python {version}, but' in line and 'delete it' in line
        assert not prepared.installs()
    else:
        assert done.returncode == 0, done.stderr
        untried = stack == 'onedl' and version == '3.14'
        assert ('Note: the lock was resolved' in done.stdout) == untried


def test_named_python_is_the_only_one_tried(checkout):
    checkout.add_command('python3', FAKE_PYTHON)
    line = error_line(checkout.run(PYTHON='/nowhere/python'))
    assert 'none was found' in line


def test_python_that_does_not_run_is_skipped(checkout):
    checkout.add_command('python3.11', '#!/usr/bin/env bash\nexit 127\n')
    checkout.add_command('python3.12', FAKE_PYTHON)
    line = error_line(checkout.run(FAKE_VERSION='3.12', FAILS='ensurepip'))
    assert 'python3.12 has no venv module' in line


def test_full_disk(checkout):
    checkout.add_command('python3', FAKE_PYTHON)
    checkout.add_command('df', FULL_DISK)
    line = error_line(checkout.run())
    assert '8 GB of free disk space are needed' in line and '2 GB' in line
    assert not (checkout.root / '.venv').exists()


@pytest.mark.parametrize(
    ('fails', 'message'),
    [
        ('lock.txt addict', 'package index cannot be reached'),
        ('probe.py mmcv|probe.py python_headers', 'Python.h'),
    ],
)
def test_checks_before_anything_is_installed(prepared, fails, message):
    assert message in error_line(prepared.run(FAILS=fails))
    assert not prepared.installs()


def test_compiler_is_needed_for_ops_only(prepared):
    (prepared.bin / 'c++').unlink()
    line = error_line(prepared.run(FAILS='probe.py mmcv'))
    assert 'no C++ compiler' in line and '--no-transfer' in line
    assert not prepared.installs()
    done = prepared.run('--no-transfer', FAILS='probe.py mmcv')
    assert done.returncode == 0, done.stderr


def test_packages_of_openmmlab_are_not_overwritten(prepared):
    line = error_line(prepared.run(OTHER_PACKAGES='mmcv-lite'))
    assert "has OpenMMLab's own mmcv-lite" in line


def test_full_installation(prepared):
    done = prepared.run('--dev', FAILS='probe.py mmcv', MAX_JOBS='4')
    assert done.returncode == 0, done.stderr
    assert 'with 4 jobs takes about 9 minutes' in done.stdout
    activate = f'source {prepared.root}/.venv/bin/activate'
    assert done.stdout.endswith(f'{activate}\n')
    torch, mmcv, rest, project = prepared.installs()
    assert all(
        f'-c {prepared.root}/requirements/lock.txt' in line
        for line in (torch, mmcv, rest)
    )
    # mmcv is compiled against the torch that was installed before.
    assert 'torch torchvision' in torch and 'build.txt' in torch
    assert mmcv.endswith('--no-build-isolation onedl-mmcv')
    for name in ('runtime', 'mmlab', 'transfer', 'tests', 'lint'):
        assert f'/{name}.txt' in rest
    assert '--no-deps --editable' in project
    releases = prepared.root / '.venv/mmunimoco-releases.txt'
    assert releases.read_text() == 'torch==9\n'


def test_mmcv_from_a_wheel(prepared):
    (prepared.bin / 'c++').unlink()
    done = prepared.run(FAILS='probe.py mmcv', WHEEL='yes')
    assert done.returncode == 0, done.stderr
    assert prepared.installs()[1].endswith('/onedl_mmcv-1.whl')
    # A wheel whose ops do not load here is compiled instead.
    done = prepared.run(FAILS='probe.py mmcv|import mmcv.ops', WHEEL='yes')
    assert 'no C++ compiler' in error_line(done)


@pytest.mark.parametrize('options', ['--no-transfer', '--stack=newest'])
def test_mmcv_without_ops_is_not_cached(prepared, options):
    done = prepared.run(options, FAILS='probe.py mmcv')
    assert done.returncode == 0, done.stderr
    _, mmcv, rest, _ = prepared.installs()
    assert '--no-cache-dir --no-binary onedl-mmcv onedl-mmcv' in mmcv
    assert '--no-build-isolation' not in mmcv
    assert '/mmlab.txt' in rest and 'transfer.txt' not in rest


def test_openmmlab_has_its_own_releases(prepared):
    done = prepared.run('--stack', 'openmmlab', '--dev')
    assert done.returncode == 0, done.stderr
    torch, rest, _ = prepared.installs()
    lock = f'-c {prepared.root}/requirements/lock-openmmlab.txt'
    assert lock in torch and lock in rest
    assert '/openmmlab.txt' in rest and '/tests.txt' in rest
    assert '/mmlab.txt' not in rest and 'transfer.txt' not in rest
    assert 'nothing to do' in prepared.run('--stack', 'openmmlab').stdout
    # One stack's installation says nothing about another's.
    assert 'nothing to do' not in prepared.run('--stack', 'newest').stdout


def test_mmcv_whose_ops_do_not_load_is_compiled_again(prepared):
    done = prepared.run(FAILS='probe.py mmcv|import mmcv.ops')
    assert "mmcv's ops cannot be imported" in error_line(done)
    compiled = [line for line in prepared.installs() if '--verbose' in line]
    assert ['--no-cache-dir' in line for line in compiled] == [False, True]


def test_gpu_without_cuda_toolkit_gets_ops_for_the_cpu(prepared):
    done = prepared.run(FAILS='probe.py mmcv|probe.py cuda_toolkit')
    assert done.returncode == 0, done.stderr
    assert 'mmcv gets ops for the CPU only' in done.stdout


@pytest.mark.parametrize(
    ('stamp', 'arguments', 'satisfied'),
    [
        ((0, 0), ['--no-transfer'], True),
        ((1, 1), ['--no-transfer'], True),
        ((1, 1), ['--dev'], True),
        ((0, 0), [], False),
        ((0, 1), ['--dev'], False),
        ((1, 0), [], False),
    ],
)
def test_second_run_installs_only_what_is_missing(
    prepared, stamp, arguments, satisfied
):
    prepared.write_stamp(*stamp)
    done = prepared.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert ('nothing to do' in done.stdout) == satisfied
    assert bool(prepared.installs()) != satisfied
    # What was installed before is still recorded.
    asked = ('--dev' in arguments, '--no-transfer' not in arguments)
    kept = [max(*pair) for pair in zip(stamp, asked, strict=True)]
    assert prepared.stamp.read_text().split()[1:] == [f'{k:d}' for k in kept]


@pytest.mark.parametrize(
    'change',
    [
        lambda root: (root / 'requirements/lock.txt').write_text('addict==1'),
        lambda root: (root / 'mmunimoco/version.py').write_text('# other'),
        lambda root: shutil.rmtree(root / 'mmunimoco/.mim'),
    ],
)
def test_changed_checkout_is_installed_again(prepared, change):
    prepared.write_stamp(1, 1)
    change(prepared.root)
    assert 'nothing to do' not in prepared.run('--dev').stdout


def test_removed_package_is_installed_again(prepared):
    prepared.write_stamp(1, 1)
    done = prepared.run(FAILS='modules torch torchvision')
    assert 'nothing to do' not in done.stdout


def test_failed_installation_continues(prepared):
    done = prepared.run('--no-transfer', FAILS='runtime.txt')
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert 'other packages (runtime mmlab) failed' in last
    assert not prepared.stamp.exists()
    assert prepared.run('--no-transfer').returncode == 0
    assert prepared.stamp.exists()


def test_here_installs_into_the_active_environment(checkout, tmp_path):
    active = tmp_path / 'active'
    write_script(active / 'bin/python', FAKE_PYTHON)
    done = checkout.run('--here', '--no-transfer', VIRTUAL_ENV=str(active))
    assert done.returncode == 0, done.stderr
    assert (active / 'mmunimoco-install.txt').exists()
    assert not (checkout.root / '.venv').exists()
    # The torch of that environment is kept: the lock does not pin it.
    assert 'checkout/requirements/lock.txt' not in checkout.installs()[0]


@pytest.mark.parametrize(
    ('arguments', 'stack', 'passed_on'),
    [
        (['--stack', 'openmmlab', '-x', 'tests'], '-openmmlab', '-x tests'),
        (['-k', 'a', '--stack=newest'], '-newest', '-k a'),
        ([], '', '-n auto --maxprocesses 4 --dist loadfile'),
        (['--all', 'tests'], '', 'tests -m \n'),
    ],
)
def test_tests_run_in_the_environment_of_the_stack(
    prepared, arguments, stack, passed_on
):
    python = prepared.root / f'.venv{stack}/bin/python'
    note = f'#!/usr/bin/env bash\necho "$PWD"{stack}: "$@" >>"$CALLS"\n'
    python.write_text(FAKE_PYTHON.replace('#!/usr/bin/env bash\n', note))
    done = prepared.run(*arguments, script='test.sh')
    assert done.returncode == 0, done.stderr
    calls = prepared.calls.read_text()
    assert f'{prepared.root}{stack}: -m pytest {passed_on}' in calls
    assert '/tests.txt' in calls


def test_number_of_test_processes(prepared):
    done = prepared.run(script='test.sh', TEST_PROCESSES='8')
    assert done.returncode == 0, done.stderr
    # xdist would apply --maxprocesses to any number.
    assert '-m pytest -n 8 --dist loadfile' in prepared.calls.read_text()


def test_help_of_the_tests_installs_nothing(checkout):
    done = checkout.run('--help', script='test.sh')
    assert done.returncode == 0 and 'TEST_PROCESSES' in done.stdout
    assert not checkout.calls.read_text()


def test_scripts_are_executable():
    for name in ('tools/install.sh', 'tools/test.sh', 'tools/demo.sh'):
        assert os.access(ROOT / name, os.X_OK), name
