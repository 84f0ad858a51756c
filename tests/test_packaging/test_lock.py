"""The lock files and the script that makes them."""

import importlib.util
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).parents[2] / 'requirements'
PYTHONS = {
    'onedl': ('3.10', '3.11', '3.12', '3.13'),
    'openmmlab': ('3.10', '3.11'),
}


def read(path):
    """The requirements of one file."""
    lines = (line.split('#')[0].strip() for line in path.open())
    return [Requirement(line) for line in lines if line]


@pytest.fixture(scope='module')
def make_lock():
    path = REQUIREMENTS / 'make_lock.py'
    spec = importlib.util.spec_from_file_location('make_lock', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins_for(lock, python):
    """Package -> pinned release, on one Python."""
    pins = {}
    for requirement in read(REQUIREMENTS / lock):
        marker = requirement.marker
        if marker is None or marker.evaluate({'python_version': python}):
            assert requirement.name not in pins, 'two pins at a time'
            (pin,) = requirement.specifier
            assert pin.operator == '=='
            pins[requirement.name] = pin.version
    return pins


@pytest.mark.parametrize(
    ('name', 'python'), [(n, p) for n in PYTHONS for p in PYTHONS[n]]
)
def test_every_requirement_has_a_pin_that_fits(make_lock, name, python):
    stack = make_lock.STACKS[name]
    pins = pins_for(stack.lock, python)
    for file in stack.files:
        for requirement in read(REQUIREMENTS / f'{file}.txt'):
            pin = pins[requirement.name]
            assert requirement.specifier.contains(pin), file


@pytest.mark.parametrize('name', PYTHONS)
def test_lock_holds_the_stack_that_was_tried(make_lock, name):
    stack = make_lock.STACKS[name]
    pins = pins_for(stack.lock, stack.tried)
    for requirement in map(Requirement, stack.given):
        pin = pins[requirement.name]
        assert requirement.specifier.contains(pin), requirement


@pytest.mark.parametrize('name', PYTHONS)
def test_lock_says_what_it_is(make_lock, name):
    text = (REQUIREMENTS / make_lock.STACKS[name].lock).read_text()
    assert text.startswith(make_lock.header(name, PYTHONS[name]))


def test_every_requirement_file_is_part_of_a_stack(make_lock):
    stacks = make_lock.STACKS.values()
    locks = {'lock-newest', *(Path(stack.lock).stem for stack in stacks)}
    found = {path.stem for path in REQUIREMENTS.glob('*.txt')}
    assert found == locks.union(*(stack.files for stack in stacks))


def test_newest_stack_pins_nothing():
    for requirement in read(REQUIREMENTS / 'lock-newest.txt'):
        assert all(part.operator == '!=' for part in requirement.specifier)


def test_install_script_reads_the_pins_that_it_needs():
    # tools/install.sh looks these up with a plain "name==release".
    for lock, name in [
        ('lock.txt', 'onedl-mmcv'),
        ('lock-openmmlab.txt', 'mmcv-lite'),
    ]:
        text = (REQUIREMENTS / lock).read_text()
        assert re.search(rf'^{name}==[\d.]+$', text, re.MULTILINE)


def test_merge_marks_only_what_differs(make_lock):
    lines = make_lock.merge(
        {
            '3.12': {'numpy': '3', 'rich': '1'},
            '3.9': {'numpy': '1', 'rich': '1', 'tomli': '2'},
            '3.10': {'numpy': '2', 'rich': '1'},
            '3.11': {'numpy': '2', 'rich': '1'},
        }
    )
    assert lines == [
        'numpy==1 ; python_version < "3.10"',
        'numpy==2 ; python_version >= "3.10" and python_version < "3.12"',
        'numpy==3 ; python_version >= "3.12"',
        'rich==1',
        'tomli==2',
    ]


def test_report_of_pip_is_read(make_lock):
    report = {
        'environment': {'python_version': '3.11'},
        'install': [
            {'metadata': {'name': 'ruamel.yaml', 'version': '0.1'}},
            {'metadata': {'name': 'Torch', 'version': '2.11.0+cpu'}},
        ],
    }
    pins = {'ruamel-yaml': '0.1', 'torch': '2.11.0'}
    assert make_lock.read_report(report) == ('3.11', pins)
