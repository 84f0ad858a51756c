"""Which releases of mmengine, mmcv and mmpretrain an import accepts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmunimoco.compatibility import REQUIRED, check_dependencies, find_version

ROOT = Path(__file__).parents[2]


def make_package(folder, name, version, init=''):
    """Write a package as OpenMMLab's look, with a version.py."""
    package = folder / name
    package.mkdir()
    (package / '__init__.py').write_text(init)
    (package / 'version.py').write_text(f'__version__ = {version!r}\n')


def import_mmunimoco(folder, *hidden):
    """Import mmunimoco in a process that sees ``folder`` first.

    Args:
        folder: Holds fake packages.
        hidden: Packages that cannot be found in that process.
    """
    code = f"""
import importlib.machinery as machinery
import sys
find = machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    if name not in {hidden!r}:
        return find(name, path, target)
machinery.PathFinder.find_spec = find_spec
import mmunimoco
"""
    return subprocess.run(
        [sys.executable, '-c', code],
        env=dict(os.environ, PYTHONPATH=f'{folder}{os.pathsep}{ROOT}'),
        capture_output=True,
        text=True,
        cwd=folder,
    )


def error_line(done):
    """The one line of an ImportError that ended a process."""
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('ImportError: mmunimoco needs')
    return last


@pytest.mark.parametrize('name', REQUIRED)
def test_missing_package_is_named_with_what_to_install(tmp_path, name):
    line = error_line(import_mmunimoco(tmp_path, name))
    assert f'{name} is not installed' in line
    assert 'bash tools/install.sh' in line
    for remedy in REQUIRED[name][1]:
        assert remedy in line


@pytest.mark.parametrize(
    ('name', 'version'),
    [('mmengine', '0.7.0'), ('mmcv', '1.7.2'), ('mmcv', '2.4.0')],
)
def test_release_out_of_range_is_named(tmp_path, name, version):
    make_package(tmp_path, name, version)
    line = error_line(import_mmunimoco(tmp_path))
    assert f'{name} {version} is installed' in line
    assert REQUIRED[name][0] in line


def test_mmpretrain_is_judged_before_its_own_assertion(tmp_path):
    make_package(tmp_path, 'mmpretrain', '1.0.0', init='assert False, "mmcv"')
    line = error_line(import_mmunimoco(tmp_path))
    assert 'mmpretrain 1.0.0 is installed' in line


@pytest.mark.parametrize(
    'versions',
    [
        ('0.10.12', '2.3.6', '1.3.6'),
        ('0.10.7', '2.1.0', '1.2.0'),
        ('0.10.8rc1', '2.3.2.post2', '1.3.0'),
        ('0.10.7', '2.1.0+cu121', '1.2.0'),
    ],
)
def test_releases_in_range_are_accepted(tmp_path, monkeypatch, versions):
    monkeypatch.syspath_prepend(tmp_path)
    required = {}
    for name, version in zip(REQUIRED, versions, strict=True):
        make_package(tmp_path, f'fake_{name}', version)
        required[f'fake_{name}'] = REQUIRED[name]
    check_dependencies(required)


def test_package_without_a_version_file_is_asked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    make_package(tmp_path, 'fake_plain', '0', init='__version__ = "3.2.1"')
    (tmp_path / 'fake_plain/version.py').unlink()
    assert find_version('fake_plain') == '3.2.1'


def test_left_over_files_do_not_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'fake_folder').mkdir()
    assert find_version('fake_folder') is None
    make_package(tmp_path, 'fake_gone', '1.0')
    (tmp_path / 'fake_gone/version.py').write_text(
        'from importlib.metadata import version\n'
        '__version__ = version("no-such-distribution-anywhere")\n'
    )
    assert find_version('fake_gone') is None


def test_installed_stack_is_accepted():
    check_dependencies()
