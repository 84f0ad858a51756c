"""Evaluate a checkpoint as the config's test settings say."""

import argparse
import os

import mmengine
from mmengine.config import Config, DictAction
from mmengine.evaluator import DumpResults
from torch.distributed.elastic.multiprocessing.errors import record

from mmunimoco.engine.launch import build_runner, merge_test_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument('--work-dir', help='folder for the log and metrics')
    parser.add_argument('--out', help='file for the results')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what to write to --out; predictions unless said otherwise',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='change settings of the config: key=value, nested as '
        'key="[(a,b),(c,d)]", without white space',
    )
    parser.add_argument(
        '--amp', action='store_true', help='evaluate in mixed precision'
    )
    parser.add_argument('--show-dir', help='folder for pictures of results')
    parser.add_argument(
        '--show', action='store_true', help='show results in a window'
    )
    parser.add_argument(
        '--interval', type=int, default=1, help='draw each N-th sample'
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that a window stays',
    )
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='do not pin the memory of the data loader',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: tta_pipeline and tta_model of the '
        'config, else the average over flips',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes are started',
    )
    # torchrun sets the environment; older launchers hand the rank over here.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    if args.out is None and args.out_item is not None:
        parser.error('--out-item needs --out, the file to write')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


# torchrun's summary has the traceback of the process that failed first.
@record
def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    runner = build_runner(merge_test_options(cfg, args))
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(args.out))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
