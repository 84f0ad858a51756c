"""Check metafiles, model-index.yml and the READMEs of configs.

Prints one line for each fault and exits with 1 if there is any.
"""

import argparse
import sys
from pathlib import Path

from mmunimoco.utils.metafile import check_metafiles, find_configs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'root',
        nargs='?',
        type=Path,
        default=Path(__file__).resolve().parents[2],
        help='folder with configs/ and model-index.yml (default: this one)',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        faults = check_metafiles(args.root)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    for fault in faults:
        print(fault)
    count = len(find_configs(args.root))
    print(f'{count} configs checked, {len(faults)} faults')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
