"""Resolve the requirement files for several Pythons and write lock.txt.

Usage: ``python requirements/make_lock.py python3.10 python3.11 ...``

Each interpreter resolves all requirement files in an empty virtual
environment without installing anything. A release found for every Python
becomes a plain pin; where an older Python has to stay on an older release,
the pins carry environment markers. lock.txt is used as a constraints file, so
platform-only packages (CUDA libraries) do no harm where nobody asks for them.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCK = HERE / 'lock.txt'
FILES = ('build', 'runtime', 'mmlab', 'transfer', 'tests', 'lint')
# The Python, and the stack, that were tried together; all else follows.
TRIED = '3.11'
STACK = (
    'torch==2.11.0',
    'torchvision==0.26.0',
    'onedl-mmengine==0.10.12',
    'onedl-mmcv==2.3.6',
    'onedl-mmpretrain==1.3.6',
    'onedl-mmdetection==3.5.1',
    'onedl-mmsegmentation==1.4.2',
)
HEADER = """\
# The releases that tools/install.sh installs, as a constraints file. Resolved
# by requirements/make_lock.py for Python {pythons}, tried on
# {tried}; do not edit by hand.
"""


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """Resolve all requirement files with one interpreter.

    Args:
        python: A command that starts the interpreter.

    Returns:
        The interpreter's version ('3.11') and a pin for each package, by
        normalised name.
    """
    with tempfile.TemporaryDirectory() as folder:
        env, report = Path(folder, 'env'), Path(folder, 'report.json')
        stack = Path(folder, 'stack.txt')
        stack.write_text('\n'.join(STACK))
        subprocess.run([python, '-m', 'venv', env], check=True)
        pip = [env / 'bin' / 'python', '-m', 'pip', 'install', '--quiet']
        subprocess.run([*pip, '--upgrade', 'pip'], check=True)
        command = [*pip, '--dry-run', '--report', report, '-c', stack]
        for name in FILES:
            command += ['-r', HERE / f'{name}.txt']
        subprocess.run([*command, '--ignore-installed'], check=True)
        return read_report(json.loads(report.read_text()))


def read_report(report: dict) -> tuple[str, dict[str, str]]:
    """Read Python's version and the pins out of one report of pip."""
    pins = {}
    for item in report['install']:
        meta = item['metadata']
        name = re.sub(r'[-_.]+', '-', meta['name']).lower()
        # A local label (2.11.0+cpu) names one index's build, not a release.
        pins[name] = meta['version'].split('+')[0]
    return report['environment']['python_version'], pins


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Merge the pins of several Pythons into lines of a constraints file.

    Args:
        resolved: Pins by package, by version of Python.

    Returns:
        One line for each package and release, with a marker where the
        release does not serve every Python.
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
    """The environment marker that selects some neighbouring Pythons.

    Args:
        served: The Pythons to select, oldest first.
        order: All Pythons resolved for, oldest first.

    Returns:
        Empty when every Python is selected.
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
    parser.add_argument('pythons', nargs='+', help='interpreters to serve')
    resolved = dict(resolve(python) for python in parser.parse_args().pythons)
    header = HEADER.format(pythons=', '.join(resolved), tried=TRIED)
    LOCK.write_text(header + '\n'.join(merge(resolved)) + '\n')


if __name__ == '__main__':
    main()
