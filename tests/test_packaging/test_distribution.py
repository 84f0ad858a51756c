"""What builds images, wheels and releases names files that exist, in order."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fake_checkout import Checkout

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob('.github/workflows/*.yml'))


def instructions(path):
    """Words of each instruction of a Dockerfile."""
    lines = path.read_text().replace('\\\n', ' ').splitlines()
    lines = [x for x in lines if x.strip() and not x.startswith('#')]
    return [line.split(None, 1) for line in lines]


def test_image_is_built_from_what_was_copied_before(tmp_path):
    """The package can be installed from these files alone."""
    installed = False
    for name, rest in instructions(ROOT / 'docker/Dockerfile'):
        if name == 'COPY':
            *sources, target = rest.split()
            for source in sources:
                place = ROOT / source
                where = tmp_path / (source if target == './' else target)
                copy = shutil.copytree if place.is_dir() else shutil.copy2
                copy(place, where)
        elif name == 'RUN' and 'tools/install.sh' in rest:
            assert (tmp_path / 'tools/install.sh').is_file()
            code = 'from setuptools.build_meta import *; build_editable("out")'
            subprocess.run(
                [sys.executable, '-c', code], cwd=tmp_path, check=True
            )
            assert (tmp_path / 'mmunimoco/.mim/configs').is_dir()
            installed = True
        if name == 'RUN':
            subprocess.run(['bash', '-n', '-c', rest], check=True)
    assert installed


def test_image_ignores_what_is_not_copied():
    ignored = (ROOT / '.dockerignore').read_text().split()
    assert {'.venv*', '.git', 'mmunimoco/.mim'} <= set(ignored)


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_scripts_that_exist(path):
    content = yaml.safe_load(path.read_text())
    steps = [s for job in content['jobs'].values() for s in job['steps']]
    commands = [step['run'] for step in steps if 'run' in step]
    assert commands
    for command in commands:
        subprocess.run(['bash', '-n', '-c', command], check=True)
        for word in shlex.split(command):
            if re.fullmatch(r'(tools|\.ci|requirements)/\S+', word):
                assert (ROOT / word).is_file(), word


def test_stacks_of_the_workflow_can_be_installed():
    content = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())
    rows = content['jobs']['stacks']['strategy']['matrix']['include']
    text = (ROOT / 'tools/install.sh').read_text()
    assert all(re.search(rf'\b{row["stack"]}\b', text) for row in rows)


def test_a_tag_has_to_be_the_version():
    from mmunimoco import __version__

    content = yaml.safe_load(
        (ROOT / '.github/workflows/release.yml').read_text()
    )
    (check,) = [
        step['run']
        for step in content['jobs']['release']['steps']
        if 'version' in step.get('name', '')
    ]
    for tag, status in ((f'v{__version__}', 0), ('v9.9', 1)):
        done = subprocess.run(
            ['bash', '-e', '-c', check.replace('python', sys.executable)],
            cwd=ROOT,
            env=dict(GITHUB_REF_NAME=tag),
        )
        assert done.returncode == status


def test_wheel_of_mmcv_is_of_the_pinned_release(tmp_path):
    checkout = Checkout(tmp_path)
    checkout.add_environment()
    folder = tmp_path / 'wheels'
    done = checkout.run(str(folder), script='build_mmcv_wheel.sh')
    assert done.returncode == 0, done.stderr
    lock = (ROOT / 'requirements/lock.txt').read_text()
    (pin,) = re.findall(r'^onedl-mmcv==\S+', lock, re.MULTILINE)
    (call,) = [
        line
        for line in checkout.calls.read_text().splitlines()
        if ' wheel ' in line
    ]
    assert call.endswith(f'--wheel-dir {folder} {pin}')
    assert f'PIP_FIND_LINKS={folder}' in done.stdout
    assert checkout.run(script='build_mmcv_wheel.sh').returncode == 2
