"""Which releases of mmengine, mmcv and mmpretrain an import accepts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmunimoco.compatibility import REQUIRED, check_dependencies, find_version

ROOT = Path(__file__).parents[2]
HIDE = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = lambda name, *args: (
    None if name == {hidden!r} else find(name, *args)
)
import mmunimoco
"""


def make_package(folder, name, version, init=''):
    """Write a package with a version.py, as OpenMMLab's have."""
    package = folder / name
    package.mkdir()
    (package / '__init__.py').write_text(init)
    (package / 'version.py').write_text(f'__version__ = {version!r}\n')


def import_error(folder, hidden=None):
    """Import mmunimoco in a process that sees the packages in ``folder``.

    Args:
        folder (Path): Holds fake packages.
        hidden (str, optional): A package that cannot be found.

    Returns:
        str: The one line of the ImportError.
    """
    done = subprocess.run(
        [sys.executable, '-c', HIDE.format(hidden=hidden)],
        env=dict(os.environ, PYTHONPATH=f'{folder}{os.pathsep}{ROOT}'),
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('ImportError: mmunimoco needs')
    return last


@pytest.mark.parametrize('name', REQUIRED)
def test_missing_package(tmp_path, name):
    line = import_error(tmp_path, name)
    assert f'{name} is not installed' in line
    assert 'bash tools/install.sh' in line
    assert all(remedy in line for remedy in REQUIRED[name][1])


@pytest.mark.parametrize(
    ('name', 'version'),
    [
        ('mmengine', '0.7.0'),
        ('mmcv', '2.4.0'),
        # Before its own import fails, with a bare AssertionError.
        ('mmpretrain', '1.0.0'),
    ],
)
def test_release_out_of_range(tmp_path, name, version):
    make_package(tmp_path, name, version, init='assert False')
    line = import_error(tmp_path)
    assert f'{name} {version} is installed' in line
    assert REQUIRED[name][0] in line


@pytest.mark.parametrize(
    'versions',
    [
        ('0.10.12', '2.3.6', '1.3.6'),
        ('0.10.7', '2.1.0', '1.2.0'),
        ('0.10.8rc1', '2.3.2.post2', '1.3.0'),
        ('0.10.7', '2.1.0+cu121', '1.2.0'),
    ],
)
def test_release_in_range(tmp_path, monkeypatch, versions):
    monkeypatch.syspath_prepend(tmp_path)
    required = {}
    for name, version in zip(REQUIRED, versions, strict=True):
        make_package(tmp_path, f'fake_{name}', version)
        required[f'fake_{name}'] = REQUIRED[name]
    check_dependencies(required)


def test_package_without_version_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    make_package(tmp_path, 'fake_plain', '0', init='__version__ = "3.2.1"')
    (tmp_path / 'fake_plain/version.py').unlink()
    assert find_version('fake_plain') == '3.2.1'


def test_left_over_files_are_not_a_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'fake_folder').mkdir()
    assert find_version('fake_folder') is None
    make_package(tmp_path, 'fake_gone', '1.0')
    (tmp_path / 'fake_gone/version.py').write_text(
        'from importlib.metadata import version\n'
        '__version__ = version("no-such-distribution-anywhere")\n'
    )
    assert find_version('fake_gone') is None


def test_installed_stack():
    check_dependencies()
