"""Show the progress of a long command.

Reads the command's output from standard input and appends it to a log file.
Shows the elapsed time, what pip is doing and, while ninja compiles, the number
of compiled files and an estimate of the remaining time.

usage: progress.py TITLE LOG
"""

import re
import shutil
import sys
import threading
import time

NINJA = re.compile(r'^\s*\[(\d+)/(\d+)\]')
FETCHING = re.compile(r'^\s*(Collecting|Downloading)\s+(\S+)')
BUILDING = re.compile(r'^\s*(Building|Installing|Preparing)\s')
QUIET_SECONDS = 30  # between two lines if the output is not a terminal


def clock(seconds: float) -> str:
    """Format a duration as minutes and seconds (1:05)."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


class Progress:
    """State of the command, from its output.

    Args:
        title: What the command does.
        start: When it started, in seconds.
    """

    def __init__(self, title: str, start: float):
        self.title = title
        self.start = start
        self.build_start = None
        self.done = self.total = 0
        self.activity = ''

    def read(self, line: str, now: float) -> None:
        """Update the state from one line of output."""
        if match := NINJA.match(line):
            self.done, self.total = map(int, match.groups())
            self.activity = ''
            # ninja reports finished files: the first one starts the clock.
            self.build_start = self.build_start or now
        elif match := FETCHING.match(line):
            name = match[2].rsplit('/', 1)[-1]
            self.activity = f'{match[1].lower()} {name}'
        elif match := BUILDING.match(line):
            self.activity = match[1].lower()

    def describe(self, now: float) -> str:
        """Return one line that describes the state."""
        parts = [f'{self.title}: {clock(now - self.start)}']
        if self.activity:
            parts.append(self.activity)
        elif self.total:
            parts.append(f'{self.done} of {self.total} files compiled')
            if self.done > 1:
                each = (now - self.build_start) / (self.done - 1)
                left = each * (self.total - self.done)
                parts.append(f'about {clock(left)} left')
        return ', '.join(parts)


def draw_until(stop: threading.Event, progress: Progress) -> None:
    """Redraw a line every second, or print one now and then."""
    terminal = sys.stdout.isatty()
    while not stop.wait(1 if terminal else QUIET_SECONDS):
        line = progress.describe(time.monotonic())
        if terminal:
            width = shutil.get_terminal_size().columns
            print(f'\r\033[K{line[: width - 1]}', end='', flush=True)
        else:
            print(line, flush=True)


def main(title: str, log_path: str) -> int:
    progress = Progress(title, time.monotonic())
    stop = threading.Event()
    drawer = threading.Thread(
        target=draw_until, args=(stop, progress), daemon=True
    )
    sys.stdin.reconfigure(errors='replace')  # compilers print anything
    terminal = sys.stdout.isatty()
    print(f'{title} ...', end='' if terminal else '\n', flush=True)
    drawer.start()
    code = 0
    try:
        with open(log_path, 'a', encoding='utf-8') as log:
            for line in sys.stdin:
                log.write(line)
                log.flush()
                progress.read(line, time.monotonic())
    except KeyboardInterrupt:
        code = 130
    finally:
        stop.set()
        drawer.join()
    took = clock(time.monotonic() - progress.start)
    print(f'\r\033[K{title}: {took}' if terminal else f'{title}: {took}')
    return code


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
