"""Show how a long command is getting on.

Reads the command's output from standard input, keeps all of it in a log file,
and shows the time passed, what pip is doing, and, for a build by ninja, how
many files are compiled and about how long the rest will take.
"""

import argparse
import re
import shutil
import sys
import threading
import time

NINJA = re.compile(r'^\s*\[(\d+)/(\d+)\]')
FETCHING = re.compile(r'^\s*(Collecting|Downloading)\s+(\S+)')
MAKING = re.compile(r'^\s*(Building|Installing|Preparing)\s')
QUIET_SECONDS = 30  # between two lines where there is no terminal


def clock(seconds: float) -> str:
    """Format a duration in seconds as minutes and seconds (1:05)."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


class Progress:
    """What is known of the command so far.

    Args:
        title: What the command does.
        start: When it was started, in seconds of any clock.
    """

    def __init__(self, title: str, start: float):
        self.title = title
        self.start = start
        self.build_start = None
        self.done = self.total = 0
        self.activity = ''

    def read(self, line: str, now: float):
        """Take in one line of the command's output."""
        if match := NINJA.match(line):
            self.done, self.total = map(int, match.groups())
            self.activity = ''
            if self.build_start is None:
                self.build_start = now
        elif match := FETCHING.match(line):
            name = match[2].rsplit('/', 1)[-1]
            self.activity = f'{match[1].lower()} {name}'
        elif match := MAKING.match(line):
            self.activity = match[1].lower()

    def describe(self, now: float) -> str:
        """One line on the state at the time given."""
        parts = [f'{self.title}: {clock(now - self.start)}']
        if self.total and not self.activity:
            parts.append(f'{self.done} of {self.total} files compiled')
            # ninja names a file when it is done; the first one sets the clock.
            if self.done > 1:
                each = (now - self.build_start) / (self.done - 1)
                left = each * (self.total - self.done)
                parts.append(f'about {clock(left)} left')
        elif self.activity:
            parts.append(self.activity)
        return ', '.join(parts)


def draw_until(stop: threading.Event, progress: Progress):
    """Redraw one line each second, or print one now and then."""
    terminal = sys.stdout.isatty()
    while not stop.wait(1 if terminal else QUIET_SECONDS):
        line = progress.describe(time.monotonic())
        if terminal:
            width = shutil.get_terminal_size().columns
            print(f'\r\033[K{line[: width - 1]}', end='', flush=True)
        else:
            print(line, flush=True)


def follow(stream, log, progress: Progress):
    """Copy the stream to the log and keep the progress up to date."""
    for line in stream:
        log.write(line)
        log.flush()
        progress.read(line, time.monotonic())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('title', help='what the command does')
    parser.add_argument('log', help='file that the output is added to')
    args = parser.parse_args()

    progress = Progress(args.title, time.monotonic())
    stop = threading.Event()
    drawer = threading.Thread(target=draw_until, args=(stop, progress))
    print(f'{args.title} ...', end='' if sys.stdout.isatty() else '\n')
    sys.stdout.flush()
    drawer.start()
    code = 0
    try:
        with open(args.log, 'a', encoding='utf-8') as log:
            follow(sys.stdin, log, progress)
    except KeyboardInterrupt:
        code = 130
    stop.set()
    drawer.join()
    clear = '\r\033[K' if sys.stdout.isatty() else ''
    took = clock(time.monotonic() - progress.start)
    print(f'{clear}{args.title}: {took}', flush=True)
    return code


if __name__ == '__main__':
    sys.exit(main())
