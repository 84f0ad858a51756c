"""Train a model from a config file.

Takes the options of mmpretrain's tools/train.py and --extend-to N, trains in
several processes on a CPU, resumes restarted runs and always runs the checks
of PreflightHook.
"""

import io
import os
import sys
from contextlib import redirect_stdout

# Threads that wait sleep instead of spinning: on a CPU that other programs use
# too, a step is ten times as fast. Read when torch is imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

try:
    # Packages print what they lack when they are imported.
    with redirect_stdout(io.StringIO()):
        from mmengine.config import Config
        from torch.distributed.elastic.multiprocessing.errors import record

        from mmunimoco.engine.launch import (
            build_runner,
            merge_train_options,
            parse_options,
        )
except ModuleNotFoundError as error:
    sys.exit(
        f'{error}. Activate the environment that tools/install.sh made: '
        'source .venv/bin/activate'
    )


# The traceback of the process that failed first stands in torchrun's summary.
@record
def main() -> None:
    args = parse_options('train', sys.argv[1:])
    cfg = Config.fromfile(args.config)
    build_runner(merge_train_options(cfg, args), args.verbose).train()


if __name__ == '__main__':
    main()
