"""The lock files and the script that writes them."""

import importlib.util
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).parents[2] / 'requirements'
PYTHONS = {
    'onedl': ('3.10', '3.11', '3.12', '3.13'),
    'openmmlab': ('3.10', '3.11'),
}


@pytest.fixture(scope='module')
def make_lock():
    path = REQUIREMENTS / 'make_lock.py'
    spec = importlib.util.spec_from_file_location('make_lock', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path):
    """Requirements in a file."""
    lines = (line.split('#')[0].strip() for line in path.open())
    return [Requirement(line) for line in lines if line]


def pins_for(lock, python):
    """Pinned release of each package for one Python."""
    pins = {}
    for requirement in read(REQUIREMENTS / lock):
        marker = requirement.marker
        if marker is None or marker.evaluate({'python_version': python}):
            assert requirement.name not in pins, 'two pins for one Python'
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
    required = [Requirement(line) for line in stack.given]
    for file in stack.files:
        required += read(REQUIREMENTS / f'{file}.txt')
    for requirement in required:
        assert requirement.specifier.contains(pins[requirement.name])


def test_newest_stack_pins_nothing():
    for requirement in read(REQUIREMENTS / 'lock-newest.txt'):
        assert all(part.operator == '!=' for part in requirement.specifier)


def test_merge_marks_only_differences(make_lock):
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
