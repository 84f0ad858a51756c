"""The checkpoints of a run: which one to expect, how one is damaged."""

import os
import random
import re
from pathlib import Path

# The smallest part of a disk that gets lost is of this size.
_BLOCK = 4096
_NAME = re.compile(r'iter_(\d+)\.pth')


class Checkpoints:
    """What is in the work folder, worked out without the code under test.

    Args:
        work_dir (Path): Folder of the run.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        # Files that were damaged, and when they were written last: one that
        # was written again since is whole.
        self._damaged: dict[str, int] = {}

    def names(self) -> list[str]:
        """Names of all checkpoints, those written last first."""
        paths = [
            path
            for path in self.work_dir.glob('iter_*.pth')
            if _NAME.fullmatch(path.name)
        ]
        paths.sort(key=_time, reverse=True)
        return [path.name for path in paths]

    def whole(self) -> list[str]:
        """Names of those that can be resumed from, best first."""
        names = [name for name in self.names() if not self.is_damaged(name)]
        last = self.work_dir / 'last_checkpoint'
        named = Path(last.read_text()).name if last.is_file() else None
        return sorted(names, key=lambda name: name != named)

    def is_damaged(self, name: str) -> bool:
        """Whether a file is as its damage left it."""
        time = self._damaged.get(name)
        return time is not None and time == _time(self.work_dir / name)

    def parts(self) -> list[str]:
        """Names of files that were not written to their end."""
        return sorted(path.name for path in self.work_dir.glob('.*.part'))

    def damage(self, how: str, place: float) -> str | None:
        """Damage what a resume would take, or leave half a file.

        Args:
            how (str): One of ``DAMAGE``.
            place (float): Where in the file, 0 ... 1.

        Returns:
            str | None: Name of the file; None if nothing would be left to
            resume from, so that nothing was done.
        """
        whole = self.whole()
        if len(whole) < 2:
            return None
        path = self.work_dir / whole[0]
        size = path.stat().st_size
        if how == 'part_file':
            part = path.with_name(f'.{path.name}.{os.getpid()}.part')
            part.write_bytes(path.read_bytes()[: int(size * place)])
            return part.name
        if how == 'truncated':
            os.truncate(path, int(size * place))
        else:
            _overwrite(path, int((size - _BLOCK) * place))
        self._damaged[path.name] = _time(path)
        return path.name


def step_of(name: str | None) -> int:
    """Steps done in a checkpoint; 0 without one."""
    return 0 if name is None else int(_NAME.fullmatch(name)[1])


def _overwrite(path: Path, position: int) -> None:
    """Replace a block by random bytes."""
    with open(path, 'rb+') as file:
        file.seek(position)
        file.write(random.Random(position).randbytes(_BLOCK))


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
