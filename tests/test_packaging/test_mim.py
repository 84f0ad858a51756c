"""Contents of a wheel, a source archive and an editable install."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from image_folders import write_image_folder
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/demo/unimoco_resnet18_fmnist.py'
FILES = (
    *('CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'MANIFEST.in', 'README.md'),
    *('model-index.yml', 'pyproject.toml', 'setup.py'),
)
FOLDERS = ('benchmarks', 'configs', 'demo', 'mmunimoco', 'requirements')
FOLDERS += ('tools', 'tests/test_packaging')

pytestmark = pytest.mark.skipif(
    Version(version('setuptools')) < Version('77'),
    reason='pyproject.toml needs setuptools >= 77',
)


def copy_checkout(folder):
    """Copy the repository: a build leaves files in its sources."""
    target = folder / 'mmunimoco'  # as `git clone` names it
    ignore = shutil.ignore_patterns('__pycache__', '.mim', '*.egg-info')
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    for name in FILES:
        shutil.copy2(ROOT / name, target / name)
    return target


def build(checkout, hook, out):
    """Call a hook of the build backend, as pip does; return the archive."""
    code = f'from setuptools.build_meta import *; print({hook}({str(out)!r}))'
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out / done.stdout.splitlines()[-1]


def files_below(root, *folders):
    """Paths of the files in folders of a repository, relative to it."""
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in (root / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel from a source archive; the sources are gone."""
    folder = tmp_path_factory.mktemp('wheel')
    checkout = copy_checkout(folder)
    sdist = build(checkout, 'build_sdist', folder)
    shutil.rmtree(checkout)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / 'unpacked')
    (unpacked,) = (folder / 'unpacked').iterdir()
    wheel = build(unpacked, 'build_wheel', folder)
    shutil.rmtree(unpacked)
    return wheel


def test_wheel_from_a_source_archive(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        config = archive.read(f'mmunimoco/.mim/{CONFIG}')
        (metadata,) = (name for name in names if name.endswith('/METADATA'))
        lines = archive.read(metadata).decode().splitlines()
        (script,) = (n for n in names if n.endswith('/scripts/mmunimoco'))
        # pip replaces it by the interpreter of the environment.
        assert archive.read(script).startswith(b'#!python\n')
    assert config == (ROOT / CONFIG).read_bytes()
    assert len(names) == len(set(names))
    prefix = 'mmunimoco/.mim/'
    mim = {name[len(prefix) :] for name in names if name.startswith(prefix)}
    assert mim == files_below(ROOT, 'configs', 'tools') | {'model-index.yml'}
    others = ('.mim/', '.dist-info/', '.data/')
    modules = {n for n in names if not any(part in n for part in others)}
    # No demo, benchmarks, tests or tools on the top level.
    assert modules == {
        name for name in files_below(ROOT, 'mmunimoco') if '.mim/' not in name
    }
    # OpenMMLab's packages are not required: see setup.py.
    required = [line for line in lines if line.startswith('Requires-Dist')]
    always = [line for line in required if 'extra ==' not in line]
    assert any('torch>=2.1' in line for line in always)
    assert not any('mm' in line.lower() for line in always)
    extras = {line.split()[1] for line in lines if 'Provides-Extra' in line}
    assert extras == {'transfer', 'tests', 'dev', 'all'}
    assert 'Requires-Python: >=3.10' in lines


@pytest.fixture(scope='module')
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel; its dependencies are those of here."""
    root = tmp_path_factory.mktemp('environment')
    venv.create(root, symlinks=True)
    (packages,) = root.glob('lib/*/site-packages')
    # A path alone: an editable mmunimoco of here is not found.
    here = sysconfig.get_path('purelib')
    (packages / 'dependencies.pth').write_text(f'{here}\n')
    python = str(root / 'bin/python')
    pip = [sys.executable, '-m', 'pip', '--python', python, 'install']
    subprocess.run([*pip, '-q', '--no-deps', '--no-index', wheel], check=True)
    return root


@pytest.fixture
def run(environment, tmp_path):
    """Run a program of the environment, away from the repository."""

    def run_program(program, *arguments):
        done = subprocess.run(
            [environment / 'bin' / program, *arguments],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        return done.stdout

    write_image_folder(tmp_path / 'images', 2, 20)
    return run_program


def test_wheel_works_in_an_environment_of_its_own(run, environment, tmp_path):
    """Command, configs and weights are found."""
    code = (
        'import sys; from mmunimoco import configs_dir; '
        'from mmunimoco.__main__ import main; '
        'from mmunimoco.utils.installed import find_weights; '
        'print(configs_dir(), find_weights("unimoco_resnet18_fmnist")); '
        'sys.exit(main(sys.argv[1:]))'
    )
    options = ['images', '--out', 'out', '--dry-run']
    text = run('python', '-c', code, 'pretrain', *options)
    (mim,) = environment.resolve().glob('lib/*/site-packages/mmunimoco/.mim')
    assert f'{mim}/configs {mim}/configs/demo/weights/' in text
    config = (tmp_path / 'out/inputs/pretrain.py').read_text()
    assert f"_base_ = ['{mim}/configs/own_data/" in config


@pytest.mark.slow
def test_command_trains_in_an_environment_of_its_own(run, tmp_path):
    text = run(
        *('mmunimoco', 'pretrain', 'images', '--out', 'out'),
        *('--epochs', '1'),
    )
    assert text.startswith('images      36 in images')
    assert list((tmp_path / 'out').glob('epoch_*.pth'))
    checked = run('mmunimoco', 'check', 'out/inputs/pretrain.py')
    assert 'No problem found' in checked


def test_editable_install_links_the_checkout(tmp_path):
    checkout = copy_checkout(tmp_path)
    wheel = build(checkout, 'build_editable', tmp_path)
    # pip installs this archive, which has to point to the checkout.
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        text = b''.join(map(archive.read, names)).decode()
    assert str(checkout) in text
    assert any(name.endswith('/scripts/mmunimoco') for name in names)
    # The folder beside which a clone stands is no empty package mmunimoco.
    installed = tmp_path / 'installed'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        f'import importlib.util, site; site.addsitedir({str(installed)!r}); '
        'print(importlib.util.find_spec("mmunimoco").origin)'
    )
    # -S: without what is installed here.
    command = [sys.executable, '-S', '-c', code]
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    found = subprocess.check_output(
        command, cwd=tmp_path, env=environment, text=True
    )
    assert found.strip() == str(checkout / 'mmunimoco/__init__.py')
    # Links still work when the checkout has been moved.
    checkout = checkout.rename(tmp_path / 'moved')
    mim = checkout / 'mmunimoco/.mim'
    names = {path.name for path in mim.iterdir()}
    assert names == {'configs', 'tools', 'model-index.yml'}
    (checkout / CONFIG).write_text('edited = True\n')
    assert (mim / CONFIG).read_text() == 'edited = True\n'
    # A wheel built afterwards holds files, not links.
    wheel = build(checkout, 'build_wheel', tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        config = archive.read(f'mmunimoco/.mim/{CONFIG}')
    assert config == b'edited = True\n'
