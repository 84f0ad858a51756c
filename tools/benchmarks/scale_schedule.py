"""What --auto-scale-lr changes where a schedule counts iterations.

Prints it in the form of --cfg-options, nothing where epochs are counted.
Called by launch.sh.

usage: scale_schedule.py CONFIG PROCESSES [arguments of train.py]
"""

import sys
from contextlib import redirect_stdout


def main(argv: list[str]) -> None:
    config, processes, *arguments = argv
    # What imports have to say must not be taken for options.
    with redirect_stdout(sys.stderr):
        from mmunimoco.engine.iteration_schedule import (
            as_text,
            options_of_command,
        )

        options = options_of_command(config, int(processes), arguments)
    print(as_text(options))


if __name__ == '__main__':
    main(sys.argv[1:])
