"""One stage in a process of its own, which tells its parent how it goes."""

import os
import shutil
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from .interrupt import SafeInterrupt
from .stages import Stage

# What a message begins with; see :func:`work`.
UPDATE, DONE, FAILED = 'update', 'done', 'failed'


class PipeReporter:
    """A :class:`Reporter` whose words go to the parent process.

    Args:
        pipe (Connection): To the parent.
    """

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def update(
        self, fraction: float, status: str, milestone: bool = False
    ) -> None:
        """Report how far the stage is."""
        # Without a parent the pipe is broken, and the stage ends here.
        self.pipe.send((UPDATE, fraction, status, milestone))


def work(stage: Stage, threads: int, pipe: Connection) -> None:
    """Run a stage; the main function of its process.

    Sends ``(UPDATE, fraction, status, milestone)`` any number of times, then
    ``(DONE,)`` or ``(FAILED, traceback)``; after an interruption, nothing.

    Args:
        stage (Stage): The stage.
        threads (int): To compute with.
        pipe (Connection): To the parent.
    """
    _answer_to_the_parent_alone()
    torch.set_num_threads(threads)
    try:
        # scikit-learn's share; torch has its own word for it.
        with threadpool_limits(threads):
            _run(stage, PipeReporter(pipe))
        pipe.send((DONE,))
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    except Exception:
        pipe.send((FAILED, traceback.format_exc()))


def _answer_to_the_parent_alone() -> None:
    """Leave the terminal's Ctrl-C to the parent, which passes it on."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The parent had them blocked until there were handlers.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SafeInterrupt.SIGNALS)


def _run(stage: Stage, reporter: PipeReporter) -> None:
    if stage.store.state == 'finished':
        # An output is gone, and a record of it is no use.
        shutil.rmtree(stage.store.folder)
    stage.store.begin()
    _print_to(stage.store.folder / 'console.log')
    start = time.monotonic()
    result = stage.run(reporter)
    result.setdefault('seconds', round(time.monotonic() - start, 1))
    stage.store.finish(dict(result, ended=round(time.time(), 1)))


def _print_to(log: Path) -> None:
    """Send all output, of libraries in C too, to the end of a file."""
    with open(log, 'ab') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # What tests and notebooks have in their place are no files.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.stdout.reconfigure(line_buffering=True)
