"""One part of the check: a command with a time limit, and its results."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What a part that goes down gets to end its own processes.
GRACE_SECONDS = 5
LOG_LINES = 40


@dataclass
class Outcome:
    """What the files that a part left behind say.

    Attributes:
        results (dict): Numbers for the report; may be empty.
        faults (list[str]): What is wrong; empty if the part passed.
        summary (str): The results in a few words.
    """

    results: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    summary: str = ''


@dataclass
class Part:
    """One part of the check.

    Attributes:
        name (str): Short name, also of its folder.
        title (str): What it does, for people.
        limit (float): Seconds after which it is ended.
        command (Callable): Takes the part's folder and returns the command.
            None for a part that is skipped.
        read (Callable): Takes the part's folder and returns its
            :class:`Outcome`, whether or not the command succeeded.
        env (dict[str, str]): Added to the environment of the command.
        skip_reason (str): Why it is skipped.
    """

    name: str
    title: str
    limit: float = 0
    command: Callable[[Path], list[str]] | None = None
    read: Callable[[Path], Outcome] | None = None
    env: dict[str, str] = field(default_factory=dict)
    skip_reason: str = ''


@dataclass
class PartResult:
    """What became of a part, as it stands in the report.

    Attributes:
        name (str): Name of the part.
        title (str): Title of the part.
        status (str): 'passed', 'failed' or 'skipped'.
        reason (str): Why it failed or was skipped.
        seconds (float): How long it took.
        limit (float): How long it might have taken.
        summary (str): The results in a few words.
        results (dict): Its numbers.
        log_tail (list[str]): End of its output, if it failed.
    """

    name: str
    title: str
    status: str
    reason: str = ''
    seconds: float = 0.0
    limit: float = 0.0
    summary: str = ''
    results: dict[str, Any] = field(default_factory=dict)
    log_tail: list[str] = field(default_factory=list)


def run_part(part: Part, folder: Path, cwd: Path) -> PartResult:
    """Run a part to its end, or to its limit.

    Args:
        part (Part): The part.
        folder (Path): Where it may write; its output goes to ``log.txt``.
        cwd (Path): Where the command runs.

    Returns:
        PartResult: Never raises for what the command does.
    """
    result = PartResult(part.name, part.title, 'skipped', part.skip_reason)
    if part.command is None:
        return result
    result.limit = part.limit
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / 'log.txt'
    start = time.monotonic()
    code = _run(
        part.command(folder), log, cwd, {**os.environ, **part.env}, part.limit
    )
    result.seconds = round(time.monotonic() - start, 1)
    outcome = _read(part, folder)
    faults = list(outcome.faults)
    if code is None:
        faults.insert(0, f'not done within its limit of {part.limit:g} s')
    elif code:
        faults.append(f'exit status {code}')
    result.status = 'failed' if faults else 'passed'
    result.reason = '; '.join(faults)
    result.results, result.summary = outcome.results, outcome.summary
    if faults:
        lines = log.read_text(errors='replace').splitlines()
        result.log_tail = lines[-LOG_LINES:]
    return result


def _read(part: Part, folder: Path) -> Outcome:
    try:
        return part.read(folder)
    except (ValueError, KeyError, SyntaxError) as error:
        # Cut short while it was written; ElementTree raises a SyntaxError.
        return Outcome(faults=[f'its results cannot be read ({error!r})'])


def _run(
    command: list[str], log: Path, cwd: Path, env: dict, limit: float
) -> int | None:
    """Run with output to a file; return the exit status, None if too late."""
    with open(log, 'w') as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own, so that all of it can be ended.
            start_new_session=True,
        )
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen) -> None:
    """End a command and what it left running; torchrun passes SIGTERM on."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_SECONDS)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen, number: int) -> None:
    # Gone already, all of it, is as good.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
