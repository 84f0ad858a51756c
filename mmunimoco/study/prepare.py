"""Commands that a study needs before its first run, such as to write data."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .protocols import PACKAGE
from .spec import Study


def fill(value: Any, work_dir: Path, seed: int) -> Any:
    """Fill ``{work_dir}`` and ``{seed}`` in all texts of a value.

    A text that is nothing but ``{seed}`` becomes an integer, as seeds of
    configs have to be.
    """
    if value == '{seed}':
        return seed
    if isinstance(value, str):
        value = value.replace('{work_dir}', str(work_dir))
        return value.replace('{seed}', str(seed))
    if isinstance(value, Mapping):
        return {k: fill(v, work_dir, seed) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(fill(v, work_dir, seed) for v in value)
    return value


def prepare(study: Study, work_dir: Path, say: Callable[[str], None]) -> bool:
    """Run the commands whose file or folder does not exist yet.

    Args:
        study (Study): The study.
        work_dir (Path): Its work folder.
        say (Callable[[str], None]): Called with a line for each command.

    Returns:
        bool: Whether a command was run.

    Raises:
        RuntimeError: If a command fails, or does not create what it should.
    """
    made = False
    for command, target in _steps(study, work_dir):
        if target.exists():
            continue
        say(f'Preparing {target}')
        paths = (str(PACKAGE.parent), os.environ.get('PYTHONPATH'))
        path = os.pathsep.join(filter(None, paths))
        try:
            done = subprocess.run(
                command,
                cwd=study.path.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
                env=os.environ | dict(PYTHONPATH=path),
            )
        except BaseException as error:
            _remove(target)  # what is half made would pass for whole
            if not isinstance(error, OSError):
                raise
            raise RuntimeError(
                f'{study.path}: the command {" ".join(command)} of prepare '
                f'cannot be started: {error}'
            ) from error
        if done.returncode != 0 or not target.exists():
            tail = '\n'.join(done.stdout.splitlines()[-15:])
            made = 'created' if target.exists() else 'did not create'
            _remove(target)
            raise RuntimeError(
                f'{study.path}: the command {" ".join(command)} of prepare '
                f'ended with exit status {done.returncode} and {made} '
                f'{target}, which is not kept:\n{tail}'
            )
        made = True
    return made


def is_prepared(study: Study, work_dir: Path, path: Path) -> bool:
    """Whether a file is what a command makes, or lies in it."""
    place = path.resolve()
    targets = {target.resolve() for _, target in _steps(study, work_dir)}
    return not targets.isdisjoint([place, *place.parents])


def _remove(target: Path) -> None:
    """Remove what a command made that failed; it was not there before."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _steps(study: Study, work_dir: Path) -> Iterator[tuple[list[str], Path]]:
    """Command and target; those that name the seed, once for each."""
    for entry in study.prepare:
        steps = {}
        for seed in study.seeds:
            command = [
                str(fill(word, work_dir, seed)) for word in entry['command']
            ]
            target = str(fill(entry['creates'], work_dir, seed))
            steps[study.path.parent / target] = command
        for target, command in steps.items():
            yield command, target
