"""The lock file and the script that makes it."""

import importlib.util
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).parents[2] / 'requirements'
PYTHONS = ('3.10', '3.11', '3.12', '3.13')


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


def pins_for(python):
    """Package -> pinned release, on one Python."""
    pins = {}
    for requirement in read(REQUIREMENTS / 'lock.txt'):
        marker = requirement.marker
        if marker is None or marker.evaluate({'python_version': python}):
            assert requirement.name not in pins, 'two pins at a time'
            (pin,) = requirement.specifier
            assert pin.operator == '=='
            pins[requirement.name] = pin.version
    return pins


@pytest.mark.parametrize('python', PYTHONS)
def test_every_requirement_has_a_pin_that_fits(python):
    pins = pins_for(python)
    for path in REQUIREMENTS.glob('*.txt'):
        for requirement in read(path):
            if path.name != 'lock.txt':
                pin = pins[requirement.name]
                assert requirement.specifier.contains(pin), path.name


def test_lock_holds_the_stack_that_was_tried(make_lock):
    lines = (REQUIREMENTS / 'lock.txt').read_text().splitlines()
    assert set(make_lock.STACK) <= set(lines)


def test_lock_says_what_it_is(make_lock):
    text = (REQUIREMENTS / 'lock.txt').read_text()
    header = make_lock.HEADER.format(
        pythons=', '.join(PYTHONS), tried=make_lock.TRIED
    )
    assert text.startswith(header)


def test_install_script_reads_the_pins_that_it_needs():
    # tools/install.sh looks these up with a plain "name==release".
    text = (REQUIREMENTS / 'lock.txt').read_text()
    for name in ('addict', 'onedl-mmcv'):
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
