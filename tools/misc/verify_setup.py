"""Check within a minute whether a pre-training config can run here.

    python tools/misc/verify_setup.py configs/demo/unimoco_resnet18_fmnist.py

Checks images, labels, a training step, a checkpoint, disk and memory. Prints
what was found and what to change, and exits with 1 if there is a problem.
"""

import argparse
import sys

from mmengine.config import DictAction
from rich.console import Console

from mmunimoco.setup_check import print_findings, verify_setup


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='output folder of the run')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    findings = verify_setup(args.config, args.cfg_options, args.work_dir)
    print_findings(Console(), findings)
    problems = [finding.name for finding in findings if finding.ok is False]
    if problems:
        print(f'{len(problems)} problems: {", ".join(problems)}')
        return 1
    print('No problem found.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
