"""Quick linear probe on cached features.

Extracts features once, without augmentation, and fits a logistic regression.
For the published linear probe see configs/benchmarks/classification.
"""

import argparse
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmengine.config import DictAction

    from mmunimoco.engine.launch import read_config
    from mmunimoco.evaluation.cached_linear_probe import probe_checkpoint
    from mmunimoco.utils.atomic import write_atomic


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config', help='a pre-training config, or one of the kNN configs'
    )
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument('--out', help='JSON file for the result')
    parser.add_argument(
        '--l2',
        type=float,
        default=1e-3,
        help='L2 penalty (default: 1e-3)',
    )
    parser.add_argument(
        '--max-iter',
        type=int,
        default=300,
        help='maximum number of iterations (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        probe(args)
    # TypeError: a value that a part of the config does not take.
    except (OSError, TypeError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def probe(args: argparse.Namespace) -> None:
    cfg = read_config(args.config, args.cfg_options)
    result = probe_checkpoint(cfg, args.checkpoint, args.l2, args.max_iter)
    result.update(config=args.config, checkpoint=args.checkpoint)
    text = json.dumps(result, indent=2)
    print(f'\n{text}')
    if args.out:
        write_atomic(Path(args.out), text + '\n')


if __name__ == '__main__':
    sys.exit(main())
