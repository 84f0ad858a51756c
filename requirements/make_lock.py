"""Resolve the requirement files for several Pythons and write a lock file.

    python requirements/make_lock.py python3.10 python3.11 ...

Writes lock.txt, or with ``--stack openmmlab`` lock-openmmlab.txt.

Each interpreter resolves all requirement files in an empty virtual
environment, without installing anything. Where Pythons need different
releases, the pins have environment markers. A lock is a constraints file, so
pins of packages for one platform (CUDA libraries) do no harm on another.
"""

import argparse
import json
import re
import subprocess
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent


class Stack(NamedTuple):
    """A set of releases that are installed together.

    Attributes:
        lock: Name of the lock file.
        files: Requirement files to resolve.
        given: Releases chosen by hand.
        tried: The Python it was tested with.
    """

    lock: str
    files: tuple[str, ...]
    given: tuple[str, ...]
    tried: str


STACKS = {
    'onedl': Stack(
        lock='lock.txt',
        files=('build', 'runtime', 'mmlab', 'transfer', 'tests', 'lint'),
        given=(
            'torch==2.11.0',
            'torchvision==0.26.0',
            'onedl-mmengine==0.10.12',
            'onedl-mmcv==2.3.6',
            'onedl-mmpretrain==1.3.6',
            'onedl-mmdetection==3.5.1',
            'onedl-mmsegmentation==1.4.2',
        ),
        tried='3.11',
    ),
    'openmmlab': Stack(
        lock='lock-openmmlab.txt',
        files=('build', 'runtime', 'openmmlab', 'tests', 'lint'),
        given=(
            'torch==2.1.2',
            'torchvision==0.16.2',
            'mmengine==0.10.7',
            'mmcv-lite==2.1.0',
            'mmpretrain==1.2.0',
            # What this torch was built against.
            'numpy<2',
        ),
        tried='3.10',
    ),
}
HEADER = (
    'The releases that tools/install.sh{option} installs, as a constraints '
    'file. Resolved by requirements/make_lock.py for Python {pythons}, tried '
    'on {tried}; do not edit by hand.'
)


def header(name: str, pythons: Iterable[str]) -> str:
    """Return the comment at the top of the lock file of a stack."""
    text = HEADER.format(
        option='' if name == 'onedl' else f' --stack {name}',
        pythons=', '.join(pythons),
        tried=STACKS[name].tried,
    )
    comment = dict(initial_indent='# ', subsequent_indent='# ')
    return textwrap.fill(text, 79, **comment) + '\n'


def resolve(python: str, stack: Stack) -> tuple[str, dict[str, str]]:
    """Resolve all requirement files of a stack with one interpreter.

    Args:
        python: Command of the interpreter.
        stack: The stack.

    Returns:
        The interpreter's version ('3.11') and the release of each package,
        by normalised name.
    """
    with tempfile.TemporaryDirectory() as folder:
        env, report = Path(folder, 'env'), Path(folder, 'report.json')
        given = Path(folder, 'given.txt')
        given.write_text('\n'.join(stack.given))
        subprocess.run([python, '-m', 'venv', env], check=True)
        pip = [env / 'bin' / 'python', '-m', 'pip', 'install', '--quiet']
        subprocess.run([*pip, '--upgrade', 'pip'], check=True)
        command = [*pip, '--dry-run', '--report', report, '-c', given]
        for name in stack.files:
            command += ['-r', HERE / f'{name}.txt']
        subprocess.run([*command, '--ignore-installed'], check=True)
        return read_report(json.loads(report.read_text()))


def read_report(report: dict) -> tuple[str, dict[str, str]]:
    """Return Python's version and the releases from a report of pip."""
    pins = {}
    for item in report['install']:
        meta = item['metadata']
        name = re.sub(r'[-_.]+', '-', meta['name']).lower()
        # A local label (2.11.0+cpu) names the build of one index.
        pins[name] = meta['version'].split('+')[0]
    return report['environment']['python_version'], pins


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Merge the pins of several Pythons into lines of a constraints file.

    Args:
        resolved: For each version of Python the release of each package.

    Returns:
        One line per package and release, with a marker if the release is not
        for every Python.
    """
    order = sorted(resolved, key=lambda v: tuple(map(int, v.split('.'))))
    pythons = defaultdict(lambda: defaultdict(list))
    for python in order:
        for name, version in resolved[python].items():
            pythons[name][version].append(python)
    lines = []
    for name in sorted(pythons):
        for version, served in pythons[name].items():
            line = f'{name}=={version}'
            if len(pythons[name]) > 1:
                line += f' ; {marker(served, order)}'
            lines.append(line)
    return lines


def marker(served: list[str], order: list[str]) -> str:
    """Return the environment marker that selects consecutive Pythons.

    Args:
        served: The Pythons to select, oldest first.
        order: All Pythons, oldest first.
    """
    parts = []
    if served[0] != order[0]:
        parts.append(f'python_version >= "{served[0]}"')
    if served[-1] != order[-1]:
        after = order[order.index(served[-1]) + 1]
        parts.append(f'python_version < "{after}"')
    return ' and '.join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('pythons', nargs='+', help='interpreters')
    parser.add_argument('--stack', choices=STACKS, default='onedl')
    args = parser.parse_args()
    stack = STACKS[args.stack]
    resolved = dict(resolve(python, stack) for python in args.pythons)
    text = header(args.stack, resolved) + '\n'.join(merge(resolved)) + '\n'
    (HERE / stack.lock).write_text(text)


if __name__ == '__main__':
    main()
