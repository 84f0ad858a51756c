"""Contents of a wheel, a source archive and an editable install."""

import os
import shutil
import subprocess
import sys
import tarfile
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


def test_wheel_from_a_source_archive(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        config = archive.read(f'mmunimoco/.mim/{CONFIG}')
        (metadata,) = (name for name in names if name.endswith('/METADATA'))
        lines = archive.read(metadata).decode().splitlines()
        (commands,) = (n for n in names if n.endswith('/entry_points.txt'))
        assert 'mmunimoco = mmunimoco.__main__:main' in (
            archive.read(commands).decode()
        )
        archive.extractall(tmp_path / 'installed')
    assert config == (ROOT / CONFIG).read_bytes()
    assert len(names) == len(set(names))
    prefix = 'mmunimoco/.mim/'
    mim = {name[len(prefix) :] for name in names if name.startswith(prefix)}
    assert mim == files_below(ROOT, 'configs', 'tools') | {'model-index.yml'}
    modules = {name for name in names if '.mim/' not in name}
    modules = {name for name in modules if '.dist-info/' not in name}
    # No demo, benchmarks, tests or tools on the top level.
    assert modules == {
        name for name in files_below(ROOT, 'mmunimoco') if '.mim/' not in name
    }
    # Outside of the repository, configs are found in the package.
    code = (
        'import importlib.util as u; s = u.spec_from_file_location("i", '
        '"mmunimoco/utils/installed.py"); m = u.module_from_spec(s); '
        's.loader.exec_module(m); print(m.configs_dir())'
    )
    installed = tmp_path / 'installed'
    command = [sys.executable, '-c', code]
    found = subprocess.check_output(command, cwd=installed, text=True)
    assert found.strip() == str(installed / 'mmunimoco/.mim/configs')
    # OpenMMLab's packages are not required: see setup.py.
    required = [line for line in lines if line.startswith('Requires-Dist')]
    always = [line for line in required if 'extra ==' not in line]
    assert any('torch>=2.1' in line for line in always)
    assert not any('mm' in line.lower() for line in always)
    extras = {line.split()[1] for line in lines if 'Provides-Extra' in line}
    assert extras == {'transfer', 'tests', 'dev', 'all'}
    assert 'Requires-Python: >=3.10' in lines


def test_wheel_works_without_the_repository(wheel, tmp_path):
    """The command line, a config and a model, from an unpacked wheel."""
    installed, images = tmp_path / 'installed', tmp_path / 'images'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    write_image_folder(images, 2, 20)
    code = (
        'import sys; from mmunimoco.__main__ import main; '
        'from mmunimoco.utils.installed import find_weights; '
        'print(find_weights("unimoco_resnet18_fmnist")); '
        'sys.exit(main(sys.argv[1:]))'
    )
    arguments = ['pretrain', images, '--out', tmp_path / 'out', '--dry-run']
    done = subprocess.run(
        [sys.executable, '-c', code, *arguments],
        cwd=tmp_path,
        env=os.environ | dict(PYTHONPATH=str(installed)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    mim = installed / 'mmunimoco/.mim'
    assert f'{mim}/configs/demo/weights/unimoco_resnet18_fmnist-' in (
        done.stdout
    )
    config = (tmp_path / 'out/inputs/pretrain.py').read_text()
    assert f"_base_ = ['{mim}/configs/own_data/" in config


def test_editable_install_links_the_checkout(tmp_path):
    checkout = copy_checkout(tmp_path)
    wheel = build(checkout, 'build_editable', tmp_path)
    # pip installs this archive, which has to point to the checkout.
    with zipfile.ZipFile(wheel) as archive:
        text = b''.join(map(archive.read, archive.namelist())).decode()
    assert str(checkout) in text
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
