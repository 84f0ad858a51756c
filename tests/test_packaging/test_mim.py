"""What a wheel, a source archive and an editable install carry."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/demo/unimoco_resnet18_fmnist.py'
SOURCES = [
    'CHANGELOG.md',
    'CITATION.cff',
    'LICENSE',
    'MANIFEST.in',
    'README.md',
    'configs',
    'model-index.yml',
    'mmunimoco',
    'pyproject.toml',
    'pytest.ini',
    'requirements',
    'setup.py',
    'tools',
]

pytestmark = pytest.mark.skipif(
    Version(version('setuptools')) < Version('77'),
    reason='pyproject.toml asks for setuptools >= 77',
)


@pytest.fixture
def checkout(tmp_path):
    """A copy of the repository: a build leaves files in its sources."""
    target = tmp_path / 'checkout'
    target.mkdir()
    ignore = shutil.ignore_patterns('__pycache__', '.mim', '*.egg-info')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, target / name)
    return target


def run_hook(checkout, hook, out):
    """Call a hook of the build backend, as pip and build do."""
    code = (
        'from setuptools import build_meta\n'
        f'print(build_meta.{hook}({str(out)!r}))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    return out / done.stdout.splitlines()[-1]


def sources_of_mim():
    """The files that .mim has to hold, as paths in the repository."""
    files = [ROOT / 'model-index.yml']
    for folder in ('configs', 'tools'):
        files += [path for path in (ROOT / folder).rglob('*')]
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_wheel_holds_copies(checkout, tmp_path):
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-index']
    subprocess.run(
        [*pip, '--no-build-isolation', '-w', tmp_path, checkout],
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        config = archive.read(f'mmunimoco/.mim/{CONFIG}')
    prefix = 'mmunimoco/.mim/'
    mim = {name[len(prefix) :] for name in names if name.startswith(prefix)}
    assert mim == sources_of_mim()
    assert config == (ROOT / CONFIG).read_bytes()
    assert 'mmunimoco/datasets/data/fashion_mnist_subset.npz' in names
    assert 'mmunimoco/datasets/data/README.md' in names
    # The tests and tools stay out of the top level, which all packages share.
    top = {name.split('/')[0] for name in names}
    assert {name for name in top if '.dist-info' not in name} == {'mmunimoco'}


def test_wheel_metadata_names_no_distribution_of_openmmlab(checkout, tmp_path):
    folder = run_hook(checkout, 'prepare_metadata_for_build_wheel', tmp_path)
    lines = (folder / 'METADATA').read_text().splitlines()
    required = [line for line in lines if line.startswith('Requires-Dist')]
    always = [line for line in required if 'extra ==' not in line]
    assert any('torch>=2.1' in line for line in always)
    assert not any('mmdet' in line or 'onedl' in line for line in always)
    extras = {line.split()[1] for line in lines if 'Provides-Extra' in line}
    assert extras == {'transfer', 'tests', 'dev', 'all'}
    assert 'Requires-Python: >=3.10' in lines


def test_sdist_holds_mim_and_builds_the_same_wheel(checkout, tmp_path):
    sdist = run_hook(checkout, 'build_sdist', tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / 'unpacked')
    (unpacked,) = (tmp_path / 'unpacked').iterdir()
    assert (unpacked / 'mmunimoco/.mim' / CONFIG).is_file()
    wheel = run_hook(unpacked, 'build_wheel', tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f'mmunimoco/.mim/{name}' for name in sources_of_mim()} <= names
    assert 'mmunimoco/datasets/data/fashion_mnist_subset.npz' in names


def test_editable_install_links_live_files(checkout, tmp_path):
    wheel = run_hook(checkout, 'build_editable', tmp_path)
    mim = checkout / 'mmunimoco/.mim'
    assert {path.name for path in mim.iterdir()} == {
        'configs',
        'tools',
        'model-index.yml',
    }
    (checkout / CONFIG).write_text('edited = True\n')
    assert (mim / CONFIG).read_text() == 'edited = True\n'
    # pip unpacks this archive, which has to lead back to the checkout.
    with zipfile.ZipFile(wheel) as archive:
        text = b''.join(map(archive.read, archive.namelist())).decode()
    assert str(checkout) in text


def test_links_survive_a_move_of_the_checkout(checkout, tmp_path):
    run_hook(checkout, 'build_editable', tmp_path)
    moved = checkout.rename(tmp_path / 'moved')
    assert (moved / 'mmunimoco/.mim' / CONFIG).is_file()


def test_wheel_after_an_editable_install_holds_files(checkout, tmp_path):
    run_hook(checkout, 'build_editable', tmp_path)
    wheel = run_hook(checkout, 'build_wheel', tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert f'mmunimoco/.mim/{CONFIG}' in names
    assert len(names) == len(set(names))
