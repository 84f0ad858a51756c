"""The processes of a run, as Linux's /proc shows them."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

PROC = Path('/proc')
_PAGE = os.sysconf('SC_PAGE_SIZE') / 2**20


@dataclass(frozen=True)
class Process:
    """A process.

    Args:
        pid (int): Its number.
        parent (int): That of its parent.
        session (int): Number of the process that the session began with; it
            stays the same when a parent dies.
        state (str): 'Z' is a zombie.
        rss (float): Resident memory in MiB.
    """

    pid: int
    parent: int
    session: int
    state: str
    rss: float

    @property
    def command(self) -> bytes:
        """Its command line; empty if it is gone."""
        return _read(PROC / str(self.pid) / 'cmdline')


def find_processes(sessions: Collection[int]) -> list[Process]:
    """Find all processes of some sessions.

    Args:
        sessions (Collection[int]): Numbers of sessions.
    """
    found = []
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            process = _parse(_read(Path(entry.path, 'stat')))
            if process is not None and process.session in sessions:
                found.append(process)
    return found


def find_workers(main: int, processes: Collection[Process]) -> list[Process]:
    """Find a training process's data loader workers: forks of it.

    Args:
        main (int): The training process.
        processes (Collection[Process]): Those of its session.
    """
    own = _read(PROC / str(main) / 'cmdline')
    return [
        process
        for process in processes
        if process.parent == main and own and process.command == own
    ]


def find_leftovers(sessions: Collection[int]) -> list[Process]:
    """Find what is left of sessions whose main processes have ended.

    A zombie that was handed to another process is that one's to bury.

    Args:
        sessions (Collection[int]): Numbers of sessions.
    """
    found = find_processes(sessions)
    parents = {process.pid for process in found} | {os.getpid()}
    return [p for p in found if p.state != 'Z' or p.parent in parents]


def _parse(stat: bytes) -> Process | None:
    # The name, in brackets, may hold anything.
    begin, _, rest = stat.rpartition(b')')
    fields = rest.split()
    if len(fields) < 22:
        return None
    return Process(
        pid=int(begin.split()[0]),
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0].decode(),
        rss=int(fields[21]) * _PAGE,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # It has ended.
        return b''
