"""Run a study: many pre-trainings and evaluations from one file.

python tools/study.py STUDY.py [--dry-run] [--parallel N] [--devices 0,1]
python tools/study.py compare RUN RUN ...
"""

import io
import sys
from contextlib import redirect_stdout

try:
    # Packages print what they lack when they are imported.
    with redirect_stdout(io.StringIO()):
        from mmunimoco.study.command_line import main
except ModuleNotFoundError as error:
    sys.exit(
        f'{error}. Activate the environment that tools/install.sh made: '
        'source .venv/bin/activate'
    )


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
