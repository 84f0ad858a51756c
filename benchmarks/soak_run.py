"""A training run in processes of its own, watched from outside.

Used by ``soak.py``. The training processes import this module too: their
config names ``StepLogHook``.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

ROOT = Path(__file__).resolve().parents[1]
STEP_LOG = 'MMUNIMOCO_SOAK_STEPS'
# A run that makes no step for so many seconds hangs.
PATIENCE = 180.0
# Seconds that data loader workers may outlive their killed main process.
FAREWELL = 30.0
SAMPLE_EVERY = 0.5  # seconds between two samples of memory
MIB = 2**20


@HOOKS.register_module()
class StepLogHook(Hook):
    """Write every step with its loss to the file ``$MMUNIMOCO_SOAK_STEPS``.

    The first line holds the number of steps done before and of the whole
    run, every other line a step and its loss as ``float.hex``. A line is
    written by one system call, so a kill leaves whole lines.
    """

    def before_train(self, runner: Runner) -> None:
        self._file = None
        if is_main_process():
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            self._file = os.open(os.environ[STEP_LOG], flags, 0o644)
            self._write(runner.iter, runner.max_iters)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        self._write(runner.iter + 1, float(outputs['loss']).hex())

    def _write(self, *words: Any) -> None:
        if self._file is not None:
            os.write(self._file, f'{words[0]} {words[1]}\n'.encode())


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it; state 'Z' is a zombie."""

    pid: int
    parent: int
    session: int
    state: str
    mib: float  # resident memory

    @property
    def command(self) -> str:
        """Command line; empty if the process has ended."""
        with suppress(OSError):
            data = Path(f'/proc/{self.pid}/cmdline').read_bytes()
            return data.replace(b'\0', b' ').decode(errors='replace')
        return ''


def find_processes(sessions: Iterable[int]) -> list[Process]:
    """List all processes of some sessions, whoever their parent is by now."""
    found, page = [], os.sysconf('SC_PAGE_SIZE') / MIB
    for path in Path('/proc').glob('[0-9]*/stat'):
        with suppress(OSError):  # it has just ended
            # The name, in brackets, may contain anything.
            fields = path.read_text().rpartition(')')[2].split()
            if int(fields[3]) in sessions:
                found.append(
                    Process(
                        int(path.parent.name),
                        int(fields[1]),
                        int(fields[3]),
                        fields[0],
                        int(fields[21]) * page,
                    )
                )
    return found


class WatchedRun:
    """A run in one work folder, started as often as it takes.

    Args:
        config (Path): The config to train.
        folder (Path): For logs; its subfolder ``work`` is the work folder.
        plan (dict): Of the soak; ``processes`` of it train.

    Attributes:
        losses (list[str]): Losses of the present start, as ``float.hex``.
        first (int | None): Steps done before the present start; None until
            it trains.
        total (int): Steps of the whole run.
        odd_lines (list[str]): Lines of the step log that are out of order.
        samples (list[tuple]): (start, step, MiB of all processes).
        survivors (set[str]): Processes that outlived their run for long.
    """

    def __init__(self, config: Path, folder: Path, plan: dict) -> None:
        self.config, self.folder = config, folder
        self.processes = plan['processes']
        self.work_dir = folder / 'work'
        self.work_dir.mkdir(parents=True)
        self.samples: list[tuple[int, int, float]] = []
        self.survivors: set[str] = set()
        self.mains: list[subprocess.Popen] = []
        self._ended: dict[int, float] = {}  # session -> when it ended
        self._number = -1
        self._last_seconds = 0.0
        self._sampled = 0.0

    # ------------------------------------------------------- starting, ending
    def start(self, resume: bool) -> None:
        """Start the training processes, each in a session of its own."""
        self._number += 1
        stem = self.folder / f'start_{self._number:03d}'
        self.log, self._steps_file = stem.with_suffix('.log'), f'{stem}.steps'
        self.first, self.total, self.losses = None, 0, []
        self.odd_lines, self._rest, self._read = [], b'', 0
        self._begin = self._heard = time.monotonic()
        self.seconds_to_train = None
        command = [sys.executable, str(ROOT / 'tools/train.py')]
        command += [str(self.config), '--work-dir', str(self.work_dir)]
        command += ['--resume'] * resume
        command += ['--launcher', 'pytorch'] * (self.processes > 1)
        port, self.mains = _free_port(), []
        for rank in range(self.processes):
            with open(stem.with_suffix(f'.{rank}.log'), 'wb') as log:
                self.mains.append(
                    subprocess.Popen(
                        command,
                        env=self._environment(rank, port),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        self.log = stem.with_suffix('.0.log')

    def _environment(self, rank: int, port: int) -> dict[str, str]:
        paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
        distributed = dict(
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
            WORLD_SIZE=str(self.processes),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
        )
        return {
            **os.environ,
            # Only on a CPU with one thread is a run the same bit by bit.
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            'MKL_NUM_THREADS': '1',
            'PYTHONUNBUFFERED': '1',
            'PYTHONPATH': os.pathsep.join(filter(None, paths)),
            STEP_LOG: self._steps_file,
            **(distributed if self.processes > 1 else {}),
        }

    def finish(self) -> dict[str, Any]:
        """Wait for the end of the present start and describe it."""
        hung = False
        try:
            self.wait(lambda: False)
        except TimeoutError:
            hung = True
            self.kill_all()
        self.poll_steps()
        for main in self.mains:
            main.wait()
            self._ended[main.pid] = time.monotonic()
        self.note_survivors()
        self._last_seconds = time.monotonic() - self._begin
        return dict(
            number=self._number,
            codes=[main.returncode for main in self.mains],
            hung=hung,
            first=self.first,
            last=None if self.first is None else self.step,
            odd_lines=self.odd_lines,
            seconds=round(self._last_seconds, 1),
        )

    def kill_all(self) -> None:
        """Send SIGKILL to every process of the present start."""
        for main in self.mains:
            if main.poll() is None:
                os.killpg(main.pid, signal.SIGKILL)

    def note_survivors(self) -> list[Process]:
        """Find processes of ended starts; remember those that stay long."""
        left = find_processes(self._ended)
        # A zombie that another process has inherited is not ours to reap.
        ours = {process.pid for process in left} | {os.getpid()}
        left = [p for p in left if p.state != 'Z' or p.parent in ours]
        for process in left:
            if time.monotonic() - self._ended[process.session] > FAREWELL:
                self.survivors.add(f'{process.command} ({process.pid})')
        return left

    def close(self) -> None:
        """Wait until no process is left; kill those that stay too long."""
        self.kill_all()
        for main in self.mains:
            main.wait()
            self._ended.setdefault(main.pid, time.monotonic())
        until = time.monotonic() + FAREWELL + 1
        while self.note_survivors() and time.monotonic() < until:
            time.sleep(0.2)
        for process in self.note_survivors():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    # --------------------------------------------------------------- watching
    @property
    def step(self) -> int:
        """Steps done, as far as is known."""
        return (self.first or 0) + len(self.losses)

    @property
    def step_seconds(self) -> float:
        """Seconds per step of a start that has ended, all included."""
        seconds = self._last_seconds - (self.seconds_to_train or 0)
        return seconds / max(len(self.losses), 1)

    @property
    def is_running(self) -> bool:
        """Whether a main process has not ended."""
        return any([main.poll() is None for main in self.mains])

    def said(self) -> str:
        """Return the output of the first main process so far."""
        return self.log.read_text(errors='replace')

    def wait(self, condition: Callable[[], bool], pause: float = 0.02) -> bool:
        """Watch the run until a condition holds.

        Args:
            condition (Callable[[], bool]): What to wait for.
            pause (float): Seconds between two looks.

        Returns:
            bool: False if the run ended first.

        Raises:
            TimeoutError: If the run makes no step for :data:`PATIENCE`.
        """
        while not condition():
            if not self.is_running:
                return condition()
            now = time.monotonic()
            if self.poll_steps():
                self._heard = now
            if now - self._heard > PATIENCE:
                raise TimeoutError(f'no step for {PATIENCE:g} s: {self.log}')
            if now - self._sampled > SAMPLE_EVERY:
                self._sampled = now
                mib = sum(p.mib for p in find_processes(self._sessions()))
                self.samples.append((self._number, self.step, mib))
            time.sleep(pause)
        return True

    def wait_for_step(self, step: int) -> bool:
        """Wait until a step is done; see :meth:`wait`."""
        return self.wait(lambda: self.step >= step)

    def poll_steps(self) -> bool:
        """Read what is new in the step log; return whether there was any."""
        try:
            with open(self._steps_file, 'rb') as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return False
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b'\n')
        for number, value in (line.decode().split() for line in lines):
            if self.first is None:
                self.first, self.total = int(number), int(value)
                self.seconds_to_train = time.monotonic() - self._begin
            elif int(number) == self.step + 1:
                self.losses.append(value)
            else:
                self.odd_lines.append(f'{number} {value}')
        return bool(lines)

    def _sessions(self) -> list[int]:
        return [main.pid for main in self.mains]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]
