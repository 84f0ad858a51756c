"""tools/install.sh: what it asks for, what it skips, how it fails.

Nothing is installed: see fake_checkout.py.
"""

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
    """A checkout with an environment and a compiler."""
    checkout.add_environment()
    checkout.add_command('c++', '#!/usr/bin/env bash\n')
    return checkout


def test_no_python_at_all(checkout):
    assert 'Python 3.10 or newer is needed' in error_line(checkout.run())


@pytest.mark.parametrize('version', ['2.7', '3.6', '3.9'])
def test_python_too_old(checkout, version):
    checkout.add_command('python3', FAKE_PYTHON)
    line = error_line(checkout.run(FAKE_VERSION=version))
    assert f'python3 is {version}' in line


@pytest.mark.parametrize('version', ['2.7', '3.9'])
def test_environment_with_a_python_too_old(prepared, version):
    line = error_line(prepared.run(FAKE_VERSION=version))
    assert f'.venv has Python {version}' in line and 'delete it' in line
    assert not prepared.installs()


@pytest.mark.parametrize('version', ['3.10', '3.13', '3.14'])
def test_python_newer_than_the_lock_is_worth_a_note(prepared, version):
    done = prepared.run(FAKE_VERSION=version)
    assert done.returncode == 0, done.stderr
    assert ('Note: the lock was' in done.stdout) == (version == '3.14')


def test_python_of_the_caller_is_the_only_one_tried(checkout):
    checkout.add_command('python3', FAKE_PYTHON)
    line = error_line(checkout.run(PYTHON='/nowhere/python'))
    assert 'Python 3.10 or newer is needed' in line


def test_shim_that_does_not_run_is_passed_over(checkout):
    checkout.add_command('python3.11', '#!/usr/bin/env bash\nexit 127\n')
    checkout.add_command('python3.12', FAKE_PYTHON)
    checkout.add_command('df', FULL_DISK)
    # The next check after Python is the disk.
    assert 'free disk' in error_line(checkout.run(FAKE_VERSION='3.12'))
    assert 'sys.version_info' in checkout.calls.read_text()


def test_python_without_venv(checkout):
    checkout.add_command('python3', FAKE_PYTHON)
    line = error_line(checkout.run(NOT_THERE='ensurepip'))
    assert 'python3 has no venv module' in line


def test_disk_too_full(checkout):
    checkout.add_command('python3', FAKE_PYTHON)
    checkout.add_command('df', FULL_DISK)
    line = error_line(checkout.run())
    assert '8 GB of free disk are needed, 2 GB are free' in line
    assert not (checkout.root / '.venv').exists()


def test_index_out_of_reach(prepared):
    line = error_line(prepared.run(NOT_THERE='lock.txt addict'))
    assert 'package index cannot be reached' in line
    assert '--retries 0' in prepared.calls.read_text()
    assert not prepared.installs()


def test_no_compiler(prepared):
    (prepared.bin / 'c++').unlink()
    line = error_line(prepared.run(NOT_THERE='_ext[.]'))
    assert 'no C++ compiler' in line
    assert '--no-transfer' in line
    assert not prepared.installs()


def test_no_python_headers(prepared):
    line = error_line(prepared.run(NOT_THERE='_ext[.]|Python.h'))
    assert 'Python.h is missing' in line


def test_compiler_is_not_needed_without_ops(prepared):
    (prepared.bin / 'c++').unlink()
    done = prepared.run('--no-transfer', NOT_THERE='_ext[.]')
    assert done.returncode == 0, done.stderr


def test_unknown_option(checkout):
    assert 'unknown option --fast' in error_line(checkout.run('--fast'))


def test_help_needs_nothing(checkout):
    done = checkout.run('--help')
    assert done.returncode == 0
    assert '--no-transfer' in done.stdout


def test_full_installation_takes_the_stack_in_order(prepared):
    done = prepared.run('--dev', NOT_THERE='_ext[.]', MAX_JOBS='4')
    assert done.returncode == 0, done.stderr
    assert 'about 9 minutes' in done.stdout
    activate = f'source {prepared.root}/.venv/bin/activate'
    assert done.stdout.endswith(f'{activate}\n')
    torch, mmcv, rest, project = prepared.installs()
    assert 'torch torchvision' in torch
    assert 'build.txt' in torch
    assert mmcv.endswith(' onedl-mmcv')
    assert '--no-build-isolation' in mmcv
    assert '--no-binary' not in mmcv
    for name in ('runtime', 'mmlab', 'transfer', 'tests', 'lint'):
        assert f'{name}.txt' in rest
    assert '--no-deps --editable' in project
    assert all('-c ' in line and 'lock.txt' in line for line in (torch, mmcv))


def test_lean_installation_never_caches_its_mmcv(prepared):
    done = prepared.run('--no-transfer', NOT_THERE='_ext[.]')
    assert done.returncode == 0, done.stderr
    _, mmcv, rest, _ = prepared.installs()
    assert '--no-cache-dir --no-binary onedl-mmcv onedl-mmcv' in mmcv
    assert '--no-build-isolation' not in mmcv
    assert 'transfer.txt' not in rest
    assert 'tests.txt' not in rest


def test_mmcv_whose_ops_do_not_load_is_built_afresh(prepared):
    done = prepared.run(NOT_THERE='_ext[.]|mmcv.ops')
    assert "mmcv's ops do not load" in error_line(done)
    built = [line for line in prepared.installs() if '--verbose' in line]
    assert len(built) == 2
    assert '--no-cache-dir' in built[1]


def test_gpu_without_its_toolkit_gets_ops_for_the_cpu(prepared):
    done = prepared.run(NOT_THERE='_ext[.]|CUDA_HOME')
    assert done.returncode == 0, done.stderr
    assert 'mmcv gets ops for the CPU alone' in done.stdout
    assert 'CUDA toolkit' not in prepared.run(NOT_THERE='_ext[.]').stdout


def test_other_distribution_is_not_overwritten(prepared):
    fake = FAKE_PYTHON.replace(
        'case "$*" in', 'case "$*" in\n *mmcv-lite*) echo mmcv-lite ;;'
    )
    write_script(prepared.root / '.venv/bin/python', fake)
    line = error_line(prepared.run())
    assert "has OpenMMLab's own mmcv-lite" in line


@pytest.mark.parametrize(
    ('stamp', 'arguments', 'satisfied'),
    [
        ((0, 0), ['--no-transfer'], True),
        ((1, 1), ['--dev'], True),
        ((1, 1), [], True),
        ((1, 1), ['--no-transfer'], True),
        ((0, 1), ['--no-transfer'], True),
        ((0, 0), [], False),
        ((0, 1), ['--dev'], False),
        ((1, 0), ['--dev'], False),
    ],
)
def test_second_run_installs_only_what_is_new(
    prepared, stamp, arguments, satisfied
):
    prepared.write_stamp(*stamp)
    done = prepared.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert ('nothing to do' in done.stdout) == satisfied
    assert bool(prepared.pip_calls()) != satisfied
    # What was there stays part of what is kept up to date.
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
def test_change_of_what_was_installed_runs_again(prepared, change):
    prepared.write_stamp(1, 1)
    change(prepared.root)
    assert 'nothing to do' not in prepared.run('--dev').stdout


def test_stamp_is_not_believed_when_a_package_is_gone(prepared):
    prepared.write_stamp(1, 1)
    done = prepared.run(NOT_THERE='find_spec.* torch torchvision')
    assert 'nothing to do' not in done.stdout


def test_failed_installation_is_carried_on(prepared):
    done = prepared.run('--no-transfer', NOT_THERE='runtime.txt')
    assert done.returncode == 1
    assert 'The rest: runtime mmlab failed' in done.stderr.splitlines()[-1]
    assert not prepared.stamp.exists()
    assert prepared.run('--no-transfer').returncode == 0
    assert prepared.stamp.exists()


def test_here_uses_the_active_environment(prepared, tmp_path):
    active = tmp_path / 'active'
    fake = FAKE_PYTHON.replace(
        'case "$*" in', f'case "$*" in\n *sys.prefix*) echo {active} ;;'
    )
    write_script(active / 'bin/python', fake)
    shutil.rmtree(prepared.root / '.venv')
    done = prepared.run(
        '--here', '--no-transfer', VIRTUAL_ENV=str(active), NOT_THERE='_ext[.]'
    )
    assert done.returncode == 0, done.stderr
    assert 'source' not in done.stdout
    assert (active / 'mmunimoco-install.txt').exists()
    assert not (prepared.root / '.venv').exists()
    # The torch of that environment stays: the lock does not bind it.
    assert 'checkout/requirements/lock.txt' not in prepared.installs()[0]


def test_scripts_are_executable():
    for name in ('tools/install.sh', 'tools/test.sh', '.ci/run'):
        assert os.access(ROOT / name, os.X_OK), name
