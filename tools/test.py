"""Evaluate a checkpoint with the test settings of a config.

Takes the options of mmpretrain's tools/test.py and in addition runs in several
processes on a CPU and always runs the checks of PreflightHook.
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
        import mmengine
        from mmengine.config import Config
        from mmengine.evaluator import DumpResults
        from torch.distributed.elastic.multiprocessing.errors import record

        from mmunimoco.engine.launch import (
            build_runner,
            merge_test_options,
            parse_options,
        )
        from mmunimoco.engine.pretrained_init import (
            NO_CHECKPOINT,
            RandomWeightsHook,
        )
except ModuleNotFoundError as error:
    sys.exit(
        f'{error}. Activate the environment that tools/install.sh made: '
        'source .venv/bin/activate'
    )


# The traceback of the process that failed first stands in torchrun's summary.
@record
def main() -> None:
    args = parse_options('test', sys.argv[1:])
    if args.out is None and args.out_item is not None:
        raise ValueError(
            f'--out-item {args.out_item} needs --out, the file to write'
        )
    cfg = Config.fromfile(args.config)
    runner = build_runner(merge_test_options(cfg, args), args.verbose)
    if args.checkpoint == NO_CHECKPOINT:
        runner.register_hook(RandomWeightsHook())
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(args.out))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
