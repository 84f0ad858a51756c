"""Scale a schedule in iterations for --auto-scale-lr; called by launch.sh.

Prints the new values as --cfg-options, or nothing if epochs are counted.

usage: scale_schedule.py CONFIG PROCESSES [arguments of train.py]
"""

import sys
from contextlib import redirect_stdout


def main(argv: list[str]) -> None:
    config, processes, *arguments = argv
    # Messages printed by imports are not options.
    with redirect_stdout(sys.stderr):
        from mmunimoco.engine.schedules import (
            as_text,
            options_of_command,
        )

        options = options_of_command(config, int(processes), arguments)
    print(as_text(options))


if __name__ == '__main__':
    main(sys.argv[1:])
