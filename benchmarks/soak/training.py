"""One start of tools/train.py, in one process or several."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from .processes import Process, find_processes, find_workers
from .step_log_hook import VARIABLE

# On the CPU, with one thread: only there is a run the same bit by bit.
_ENVIRONMENT = dict(
    CUDA_VISIBLE_DEVICES='',
    OMP_NUM_THREADS='1',
    MKL_NUM_THREADS='1',
    PYTHONUNBUFFERED='1',
)


class Training:
    """Training processes, each in a session of its own.

    Args:
        root (Path): The checkout; its tools/train.py is run.
        config (Path): What to train.
        work_dir (Path): Folder of the run.
        files (Path): Start of the names of what is written beside: logs and
            steps.
        processes (int): How many.
        resume (bool): Whether to go on.
    """

    def __init__(
        self,
        root: Path,
        config: Path,
        work_dir: Path,
        files: Path,
        processes: int,
        resume: bool,
    ) -> None:
        self.log = files.with_suffix('.log')
        self.steps_file = files.with_suffix('.steps')
        command = [sys.executable, str(root / 'tools/train.py'), str(config)]
        command += ['--work-dir', str(work_dir)]
        command += ['--resume'] * resume
        command += ['--launcher', 'pytorch'] * (processes > 1)
        port = _free_port() if processes > 1 else 0
        self._mains: list[subprocess.Popen] = []
        try:
            for rank in range(processes):
                environment = self._environment(root, rank, processes, port)
                self._mains.append(self._start(command, environment, rank))
        except BaseException:
            self.end()
            raise

    @property
    def sessions(self) -> list[int]:
        """Numbers of the sessions, which are those of the main processes."""
        return [main.pid for main in self._mains]

    def is_running(self) -> bool:
        """Whether a main process has not ended yet."""
        return any([main.poll() is None for main in self._mains])

    @property
    def codes(self) -> list[int | None]:
        """Exit status of each main process, -N for signal N."""
        return [main.returncode for main in self._mains]

    def find(self) -> list[Process]:
        """All processes there are now."""
        return find_processes(self.sessions)

    def workers(self, rank: int) -> list[Process]:
        """Data loader workers of a main process."""
        return find_workers(self._mains[rank].pid, self.find())

    def signal(self, rank: int, number: int) -> None:
        """Send a signal to a main process."""
        self._mains[rank].send_signal(number)

    def kill_all(self) -> None:
        """SIGKILL for every process."""
        for main in self._mains:
            # Not once it was waited for: the number may be another's.
            if main.poll() is None:
                os.killpg(main.pid, signal.SIGKILL)

    def end(self) -> None:
        """Have no process left, however it came to that."""
        self.kill_all()
        for main in self._mains:
            main.wait()
        for process in self.find():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def said(self) -> str:
        """What the first main process has printed so far."""
        return self.log.read_text(errors='replace')

    def _start(
        self, command: list[str], environment: dict[str, str], rank: int
    ) -> subprocess.Popen:
        log = self.log if not rank else self.log.with_suffix(f'.{rank}.log')
        with open(log, 'wb') as file:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # To be found, and killed, as a whole. Ctrl-C does not get
                # there.
                start_new_session=True,
            )

    def _environment(
        self, root: Path, rank: int, processes: int, port: int
    ) -> dict[str, str]:
        paths = [str(root), os.environ.get('PYTHONPATH', '')]
        environment = {
            **os.environ,
            **_ENVIRONMENT,
            'PYTHONPATH': os.pathsep.join(filter(None, paths)),
            VARIABLE: str(self.steps_file),
        }
        if processes > 1:
            environment.update(
                MASTER_ADDR='127.0.0.1',
                MASTER_PORT=str(port),
                WORLD_SIZE=str(processes),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            )
        return environment


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]
