"""Start a run: a process forked from the study, or a program of its own.

Forking spares a run the seconds that the imports take. It is done on a CPU
alone, where the study itself computes nothing: CUDA, and threads of OpenMP,
do not survive a fork.
"""

import ctypes
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import IO

import torch
from mmengine.device import get_device
from threadpoolctl import threadpool_limits

from mmunimoco.utils.versions import count_cores

# What stands before a script that runs in one process, here.
SINGLE = [sys.executable, '-u']
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def start_process(
    command: Sequence[str], console: IO, environment: Mapping[str, str]
) -> 'subprocess.Popen | ForkedProcess':
    """Start a command in a session of its own.

    Ctrl-C in the terminal then reaches the study alone, which asks its runs
    to save. On Linux the kernel sends SIGTERM to the process when the study
    dies.

    Args:
        command (Sequence[str]): Program and arguments.
        console (IO): File for all output.
        environment (Mapping): All environment variables.
    """
    linux = sys.platform == 'linux'
    if linux and list(command[:2]) == SINGLE and get_device() == 'cpu':
        return ForkedProcess(command[2:], console, environment)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=_end_with_parent if linux else None,
    )


class ForkedProcess:
    """A Python script in a forked process; the methods are those of Popen.

    Args:
        words (Sequence[str]): Script and arguments.
        console (IO): File for all output.
        environment (Mapping): All environment variables.
    """

    def __init__(
        self, words: Sequence[str], console: IO, environment: Mapping[str, str]
    ) -> None:
        self._process = get_context('fork').Process(
            target=_work,
            args=(list(words), console.fileno(), environment, os.getpid()),
        )
        # Blocked until the child has handlers of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Exit status, -N after signal N, None while it runs."""
        return self._process.exitcode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def wait(self) -> None:
        """Wait for the end."""
        self._process.join()


def _work(
    words: list[str],
    console: int,
    environment: Mapping[str, str],
    parent: int,
) -> None:
    """Be what a new interpreter would be, as far as scripts can see."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    _end_with_parent()
    if os.getppid() != parent:  # it died before
        sys.exit(1)
    for stream in (1, 2):
        os.dup2(console, stream)
    # Tests and notebooks replace these by objects that are not files.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.stdout.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(environment)
    threads = int(environment.get('OMP_NUM_THREADS') or count_cores())
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name='__main__')


def _end_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
